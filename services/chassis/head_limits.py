"""A bound on the head of a request: uvicorn waits for its end for ever, and keeps all of it."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LARGEST = 65_536
_ANSWER = "HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HeadLimitedProtocol(HttpToolsProtocol):
    """Answers 408 when a head takes longer than `seconds`, 431 when it is larger than 64 kB.

    The clock starts with the connection, and anew with each further request on it.
    """

    seconds: ClassVar[float] = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._received = 0
        self._clock: asyncio.TimerHandle | None = None
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._clock is not None:  # the head has not ended yet
            self._received += len(data)
            if self._received > _LARGEST:
                self._refuse("431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        self._received = 0
        if self._clock is None:
            self._start_clock()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_clock()
        super().on_headers_complete()

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self.seconds, self._refuse, "408 Request Timeout")

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _refuse(self, status: str) -> None:
        self._stop_clock()
        if not self.transport.is_closing():
            self.transport.write((_ANSWER % status).encode())
            self.transport.close()
