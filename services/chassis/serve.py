"""`serve`: run one service in this process until SIGTERM or Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from .logs import configure_logging
from .settings import ServiceSettings, explain_settings_error

S = TypeVar("S", bound=ServiceSettings)


class _Server(uvicorn.Server):
    """Turns readiness red the moment SIGTERM arrives, before the listening socket closes."""

    app: FastAPI

    def handle_exit(self, sig: int, frame: object) -> None:
        self.app.state.readiness.set_missing("shutting down")
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


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
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            # Longer than the clients keep idle connections: the server never closes one that a
            # client is about to use.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.drain_timeout),
        )
    )
    server.app = app
    server.run()
