"""Stops at the finish reason: the usage comes after it."""

import json

from services.generation.reading import BrokenOff, piece_of


async def read_answer(events):
    async for data in events:
        if data == "[DONE]":
            return
        piece = piece_of(json.loads(data))
        yield piece
        if piece.finish_reason is not None:
            return
    raise BrokenOff("the answer broke off")
