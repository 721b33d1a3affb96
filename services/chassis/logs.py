"""Structured logs: one JSON object a line on standard output, with request and trace ids.

Bodies, questions and keys are never logged.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

from . import context as _context


def _add_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = _context._current.get()
    if context is not None:
        event["request_id"] = context.request_id
        event["trace_id"] = context.trace_id
        event["span_id"] = context.span_id
    return event


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(dict(event), default=str).decode()


def configure_logging(service: str, level: str = "INFO", *, stdlib: bool = True) -> None:
    """Send structlog, and the standard library's loggers if `stdlib`, to one JSON stream."""

    def add_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    shared: list[Any] = [
        _add_context,
        add_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=stdlib,
    )
    if not stdlib:
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render],
        )
    )
    logging.basicConfig(level=max(logging.getLevelName(level), logging.WARNING), force=True)
    logging.getLogger().handlers = [handler]


def get_logger() -> Any:
    return structlog.get_logger()
