"""Gives all that is left: a stage that hangs uses it all up."""

from services.chassis import CallFailed


async def run_stage(work, stage, later, left, lost):
    seconds = left - sum(item.share for item in later)
    if seconds < stage.least:
        lost[stage.name] = "not begun"
        return None
    try:
        return await work(seconds)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
