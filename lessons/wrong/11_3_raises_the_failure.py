"""One stage that fails takes the whole answer with it."""


async def run_stage(work, stage, later, left, lost):
    seconds = min(stage.cap, left - sum(item.share for item in later))
    if seconds < stage.least:
        lost[stage.name] = "not begun"
        return None
    return await work(seconds)
