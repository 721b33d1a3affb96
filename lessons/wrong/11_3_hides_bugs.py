"""Catches every error: a bug looks like a lost stage."""


async def run_stage(work, stage, later, left, lost):
    seconds = min(stage.cap, left - sum(item.share for item in later))
    if seconds < stage.least:
        lost[stage.name] = "not begun"
        return None
    try:
        return await work(seconds)
    except Exception as error:
        lost[stage.name] = getattr(error, "reason", str(error))
        return None
