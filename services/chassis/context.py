"""The context of one request: its id, its trace and the time it has left.

It travels with every call between services in three headers:

* `x-request-id`: chosen at the edge, the same on every hop.
* `traceparent`: W3C Trace Context (https://www.w3.org/TR/trace-context/); every hop is a new span.
* `x-deadline-ms`: whole milliseconds left. A duration and not a clock time, as in gRPC's
  `grpc-timeout`, so that two machines with different clocks agree.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,64}$")


class Deadline:
    """A point in time after which nobody waits for the answer."""

    __slots__ = ("at",)

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at


@dataclass(slots=True)
class RequestContext:
    request_id: str
    trace_id: str
    span_id: str
    parent_id: str | None = None
    flags: str = "01"
    deadline: Deadline = field(default_factory=lambda: Deadline(30.0))

    @classmethod
    def new(cls, seconds: float = 30.0, request_id: str | None = None) -> RequestContext:
        """A context that starts here: at the edge, in a worker or in a test."""
        trace_id = os.urandom(16).hex()
        return cls(request_id or trace_id[:16], trace_id, _span_id(), deadline=Deadline(seconds))

    @classmethod
    def from_headers(cls, headers: dict[bytes, bytes], default_seconds: float) -> RequestContext:
        """Continue the caller's context. A malformed header is ignored, as the standard asks."""
        parent = _TRACEPARENT.match(headers.get(b"traceparent", b"").decode("latin-1"))
        if parent and parent[1] != "0" * 32 and parent[2] != "0" * 16:
            trace_id, parent_id, flags = parent[1], parent[2], parent[3]
        else:
            trace_id, parent_id, flags = os.urandom(16).hex(), None, "01"
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        if not _REQUEST_ID.match(request_id):
            request_id = trace_id[:16]
        seconds = default_seconds
        raw = headers.get(b"x-deadline-ms", b"")
        if raw.isdigit() and len(raw) < 10:
            seconds = min(int(raw) / 1000, default_seconds)
        return cls(request_id, trace_id, _span_id(), parent_id, flags, Deadline(seconds))

    def headers(self, seconds: float | None = None) -> dict[str, str]:
        """Headers for a call to the next service, with the time left (or less, if given)."""
        left = self.deadline.left if seconds is None else min(seconds, self.deadline.left)
        return {
            "x-request-id": self.request_id,
            "traceparent": f"00-{self.trace_id}-{self.span_id}-{self.flags}",
            "x-deadline-ms": str(int(left * 1000)),
        }


def _span_id() -> str:
    return os.urandom(8).hex()


_current: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


def current() -> RequestContext:
    """The context of the request being served; a fresh one outside a request."""
    context = _current.get()
    return context if context is not None else RequestContext.new()


def set_context(context: RequestContext) -> None:
    _current.set(context)


@contextmanager
def use_context(context: RequestContext) -> Iterator[RequestContext]:
    """Work under `context`: in a worker, a test, or a branch with a shorter deadline."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
