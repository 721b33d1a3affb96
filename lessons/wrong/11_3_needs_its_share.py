"""Takes the share for the least: a stage behind a slow one is never begun."""

from services.chassis import CallFailed


async def run_stage(work, stage, later, left, lost):
    seconds = min(stage.cap, left - sum(item.share for item in later))
    if seconds < stage.share:
        lost[stage.name] = "not begun"
        return None
    try:
        return await work(seconds)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
