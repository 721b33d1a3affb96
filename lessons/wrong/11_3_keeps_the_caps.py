"""Keeps the caps of the later stages, not their shares: nearly nothing is ever begun."""

from services.chassis import CallFailed


async def run_stage(work, stage, later, left, lost):
    seconds = min(stage.cap, left - sum(item.cap for item in later))
    if seconds < stage.least:
        lost[stage.name] = "not begun"
        return None
    try:
        return await work(seconds)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
