"""The cap alone: each stage has its own timeout, and nobody counts the whole."""

from services.chassis import CallFailed


async def run_stage(work, stage, later, left, lost):
    try:
        return await work(stage.cap)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
