"""`serve`: run one service in this process until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import TypeVar

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from .head_limits import HeadLimitedProtocol
from .logs import configure_logging
from .settings import ServiceSettings, explain_settings_error

S = TypeVar("S", bound=ServiceSettings)


_HANDED_OVER = "LISTEN_FD"
"""Environment variable with the number of a listening socket in which callers may wait already."""
_PATIENCE = 3.0
_ARRIVING = 0.2
"""Seconds, at most, between a caller's connection and its request."""


class _Server(uvicorn.Server):
    """Loses no request between two processes of the same service, one after the other.

    On SIGTERM readiness is red at once; for `notice` seconds more everything is served, each answer
    closing its connection, so that callers let go before the server does. Then nobody new may come,
    and only after them the connections close. A process that takes over a socket accepts when it is
    ready: whoever waits there would only be told to come again.
    """

    app: FastAPI
    notice: float
    handed_over: bool

    def handle_exit(self, sig: int, frame: object) -> None:
        self.app.state.readiness.drain()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.handed_over:
            begin = self.lifespan.startup

            async def begin_and_get_ready() -> None:
                await begin()
                for _ in range(int(_PATIENCE / 0.01)):
                    reason = self.app.state.readiness.reason
                    if reason is None or "failed" in reason:
                        break
                    await asyncio.sleep(0.01)

            self.lifespan.startup = begin_and_get_ready
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.connections and not self.force_exit:
            await asyncio.sleep(self.notice)
            for listening in self.servers:
                listening.close()
            await asyncio.sleep(_ARRIVING)  # whoever has just connected is served as well
        await super().shutdown(sockets)


def _listen(config: uvicorn.Config) -> socket.socket:
    handed_over = os.environ.pop(_HANDED_OVER, "")
    if handed_over:
        return socket.socket(fileno=int(handed_over))
    own = config.bind_socket()
    if hasattr(socket, "SO_REUSEPORT"):
        # Only now: a second program on this port is still refused, unless it is meant to take over
        # and says so with the same option.
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return own


def serve(create_app: Callable[[S], FastAPI], settings_class: type[S]) -> None:
    """Read the settings, build the app, listen. A wrong setting ends with one clear message."""
    prefix = settings_class.model_config.get("env_prefix", "")
    try:
        settings = settings_class()
    except ValidationError as error:
        sys.exit(
            f"{settings_class.name} cannot start, these settings are wrong:\n"
            + explain_settings_error(error, prefix)
        )
    configure_logging(settings.name, settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=type("Protocol", (HeadLimitedProtocol,), {"seconds": settings.head_time}),
        log_config=None,
        access_log=False,
        server_header=False,
        # Longer than the clients keep idle connections: the server never closes one that a
        # client is about to use.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )
    server = _Server(config)
    server.app, server.notice = app, settings.drain_notice
    server.handed_over = _HANDED_OVER in os.environ
    server.run(sockets=[_listen(config)])
