"""Begins with whatever is left, be it a thousandth of a second."""

from services.chassis import CallFailed


async def run_stage(work, stage, later, left, lost):
    seconds = min(stage.cap, left - sum(item.share for item in later))
    if seconds <= 0:
        lost[stage.name] = "not begun"
        return None
    try:
        return await work(seconds)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
