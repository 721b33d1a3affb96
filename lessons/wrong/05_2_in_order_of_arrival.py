"""Answers in the order of their arrival, under the names in the order of the question."""

import asyncio


async def ask_together(ask, names):
    answers = []
    for done in asyncio.as_completed([ask(name) for name in names]):
        try:
            answers.append(await done)
        except Exception as error:
            answers.append(error)
    return dict(zip(names, answers, strict=True))
