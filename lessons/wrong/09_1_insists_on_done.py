"""Takes an answer without [DONE] for a broken one, finish reason or not."""

import json

from services.generation.reading import BrokenOff, piece_of


async def read_answer(events):
    async for data in events:
        if data == "[DONE]":
            return
        yield piece_of(json.loads(data))
    raise BrokenOff("there was no [DONE]")
