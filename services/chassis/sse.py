"""Server-sent events, as in the HTML standard (https://html.spec.whatwg.org, §9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson

MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event: its name (`message` when the sender gave none) and its raw data."""

    event: str
    data: str

    def json(self) -> object:
        return orjson.loads(self.data)


def encode_event(data: object, event: str | None = None) -> bytes:
    """One event with `data` as JSON. JSON has no raw line breaks, so one `data:` line is enough."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


async def parse_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """Events out of a byte stream, whatever the chunking; comments and unknown fields skipped."""
    buffer = b""
    event, data = "", list[str]()
    async for chunk in chunks:
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for raw in lines:
            line = raw.rstrip(b"\r").decode("utf-8", "replace")
            if not line:
                if data:
                    yield ServerSentEvent(event or "message", "\n".join(data))
                event, data = "", []
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
