"""A TCP proxy that makes a connection as bad as asked, and counts the requests that pass it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import httptools

_FAILED = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\n"
    b"broken"
)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST and not FIN


@dataclass(slots=True)
class FaultProxy:
    """In front of the service at `target` (a URL); `url` leads to it while the context is open.

    The faults can be changed at any time and hold from the next request on:

    * `delay`, `jitter`: seconds before a request is passed on, and up to so many more, at random
    * `resets`: share of requests whose connection is reset, at equal distances
    * `silent`: connections are accepted and requests read, and nothing is ever answered
    * `speed`: bytes of an answer a second
    * `failing`: every request is answered 500
    """

    target: str
    host: str = "127.0.0.1"
    port: int = 0
    delay: float = 0.0
    jitter: float = 0.0
    resets: float = 0.0
    silent: bool = False
    speed: float | None = None
    failing: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    requests: int = 0
    resets_made: int = 0
    waiting: int = 0
    """Requests that a silent proxy holds now, and the most that it held at once."""
    waiting_most: int = 0
    url: str = ""
    _server: asyncio.Server | None = None
    _open: set[asyncio.Task[Any]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{self.host}:{self.port}{urlsplit(self.target).path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back: asyncio.Task[None] | None = None
        onward: asyncio.StreamWriter | None = None
        requests = _Requests()
        held = 0
        try:
            while data := await reader.read(65536):
                new = requests.feed(data)
                self.requests += new
                if self.failing:
                    writer.write(_FAILED * requests.ended())
                    continue
                if int((self.requests - new) * self.resets + 0.5) < int(
                    self.requests * self.resets + 0.5
                ):
                    self.resets_made += 1
                    _reset(writer)
                    return
                if self.silent:
                    held += new
                    self.waiting += new
                    self.waiting_most = max(self.waiting_most, self.waiting)
                    continue
                if new:
                    await asyncio.sleep(self.delay + self.jitter * self.chance.random())
                if onward is None:
                    at = urlsplit(self.target)
                    answers, onward = await asyncio.open_connection(at.hostname, at.port)
                    back = asyncio.ensure_future(self._answers(answers, writer))
                onward.write(data)
                await onward.drain()
        except OSError:
            pass
        finally:
            self.waiting -= held
            if back is not None:
                back.cancel()
            for end in (writer, onward):
                if end is not None:
                    end.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536 if self.speed is None else 512):
                writer.write(data)
                await writer.drain()
                if self.speed is not None:
                    await asyncio.sleep(len(data) / self.speed)
        writer.close()


class _Requests:
    """Counts the requests in what a client sends on one connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._begun = self._ended = 0

    def on_message_begin(self) -> None:
        self._begun += 1

    def on_message_complete(self) -> None:
        self._ended += 1

    def feed(self, data: bytes) -> int:
        """How many requests begin in `data`."""
        before = self._begun
        self._parser.feed_data(data)
        return self._begun - before

    def ended(self) -> int:
        """How many have ended since this was asked last."""
        ended, self._ended = self._ended, 0
        return ended


def _reset(writer: asyncio.StreamWriter) -> None:
    link: socket.socket = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def _serve(target: str, port: int, delay: float) -> None:
    async with FaultProxy(target, host="0.0.0.0", port=port, delay=delay):
        await asyncio.Event().wait()


if __name__ == "__main__":  # in a container: this file is copied there alone
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
