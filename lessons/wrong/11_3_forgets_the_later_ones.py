"""Takes all that is left, and leaves nothing to the stages after it."""

from services.chassis import CallFailed


async def run_stage(work, stage, later, left, lost):
    seconds = min(stage.cap, left)
    if seconds < stage.least:
        lost[stage.name] = "not begun"
        return None
    try:
        return await work(seconds)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
