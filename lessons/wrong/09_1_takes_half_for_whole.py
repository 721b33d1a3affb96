"""Does not notice that a stream has ended too early."""

import json

from services.generation.reading import piece_of


async def read_answer(events):
    async for data in events:
        if data == "[DONE]":
            return
        yield piece_of(json.loads(data))
