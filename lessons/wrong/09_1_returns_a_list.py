"""Returns a list in place of giving pieces on."""

import json

from services.generation.reading import BrokenOff, piece_of


async def read_answer(events):
    pieces = []
    async for data in events:
        if data == "[DONE]":
            return pieces
        pieces.append(piece_of(json.loads(data)))
    if not pieces or pieces[-1].finish_reason is None:
        raise BrokenOff("the answer broke off")
    return pieces
