"""The first failure is raised, and every answer is lost."""

import asyncio


async def ask_together(ask, names):
    answers = await asyncio.gather(*(ask(name) for name in names))
    return dict(zip(names, answers, strict=True))
