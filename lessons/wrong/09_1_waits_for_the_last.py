"""Collects the pieces and gives them all at the end."""

import json

from services.generation.reading import BrokenOff, piece_of


async def read_answer(events):
    pieces, finished = [], False
    async for data in events:
        if data == "[DONE]":
            finished = True
            break
        pieces.append(piece_of(json.loads(data)))
        finished = finished or pieces[-1].finish_reason is not None
    for piece in pieces:
        yield piece
    if not finished:
        raise BrokenOff("the answer broke off")
