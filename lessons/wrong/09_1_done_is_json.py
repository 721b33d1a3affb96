"""Decodes [DONE] as if it were JSON."""

import json

from services.generation.reading import BrokenOff, piece_of


async def read_answer(events):
    finished = False
    async for data in events:
        piece = piece_of(json.loads(data))
        finished = finished or piece.finish_reason is not None
        yield piece
    if not finished:
        raise BrokenOff("the answer broke off")
