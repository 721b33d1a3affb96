"""From the events of an OpenAI-compatible server to the pieces of an answer.

An answer is whole once its finish reason or `[DONE]` has come. A connection that ends before is
no error to HTTP, so whoever reads a stream has to notice it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson

ReadAnswer = Callable[[AsyncIterator[str]], AsyncGenerator["Piece", None]]


@dataclass(slots=True)
class Piece:
    """A part of an answer, in order: text, then a finish reason, then the usage."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    model: str = ""
    route: str = ""
    """The model name here that it came from; set once it is known who answers."""


class BrokenOff(Exception):
    """The stream ended, or said that it failed, before the answer was whole."""


def piece_of(chunk: object) -> Piece:
    """The piece that one chunk holds, perhaps an empty one. Raises BrokenOff."""
    if not isinstance(chunk, dict):
        raise BrokenOff("sent a chunk that is not an object")
    if error := chunk.get("error"):
        message = error.get("message") if isinstance(error, dict) else error
        raise BrokenOff(f"failed while it answered ({message})")
    choice = (chunk.get("choices") or [{}])[0]
    return Piece(
        text=(choice.get("delta") or {}).get("content") or "",
        finish_reason=choice.get("finish_reason"),
        usage=chunk.get("usage"),
        model=chunk.get("model") or "",
    )


async def read_answer(events: AsyncIterator[str]) -> AsyncGenerator[Piece, None]:
    """The pieces, each as soon as its event is there. Raises BrokenOff.

    `events` gives the data of each event: JSON, and `[DONE]` at the end.
    """
    finished = False
    async for data in events:
        if data == "[DONE]":
            return
        piece = piece_of(orjson.loads(data))
        finished = finished or piece.finish_reason is not None
        yield piece
    if not finished:
        raise BrokenOff("the answer broke off before its end")
