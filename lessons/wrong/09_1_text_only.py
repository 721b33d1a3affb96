"""Gives on the pieces with text only: reason and usage are lost."""

import json

from services.generation.reading import BrokenOff, piece_of


async def read_answer(events):
    finished = False
    async for data in events:
        if data == "[DONE]":
            return
        piece = piece_of(json.loads(data))
        finished = finished or piece.finish_reason is not None
        if piece.text:
            yield piece
    if not finished:
        raise BrokenOff("the answer broke off")
