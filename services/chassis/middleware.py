"""One pure-ASGI layer around every service: context, load shedding, body limit, metrics, log.

One layer and not five: each ASGI layer costs CPU on every request, and the parts need each
other's results (the log line wants the status that the limiter chose).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .context import RequestContext, set_context
from .logs import get_logger
from .problems import Problem, internal_problem

if TYPE_CHECKING:
    from .metrics import HttpMetrics
    from .readiness import Readiness

_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"})

_LINGER = 1.0
"""Seconds that a refused body is read on, so that its sender can read the answer."""


class _BodyTooLarge(HTTPException):
    """An HTTPException, because FastAPI turns any other error while reading a body into a 400."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"The body is larger than {limit} bytes. Send it in smaller parts.")


class ServiceMiddleware:
    def __init__(
        self,
        app: ASGIApp,
        *,
        readiness: Readiness,
        metrics: HttpMetrics,
        max_concurrency: int,
        max_body_bytes: int,
        default_deadline: float,
    ) -> None:
        self.app = app
        self.readiness = readiness
        self.metrics = metrics
        self.max_concurrency = max_concurrency
        self.max_body_bytes = max_body_bytes
        self.default_deadline = default_deadline
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        context = RequestContext.from_headers(headers, self.default_deadline)
        set_context(context)
        scope.setdefault("state", {})["context"] = context
        request_id = context.request_id.encode()
        status, ended, closing = 0, 0.0, False

        async def send_out(message: Message) -> None:
            nonlocal status, ended, closing
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = message.setdefault("headers", [])
                closing = (b"connection", b"close") in sent
                if self.readiness.draining and not closing:  # the caller's next one goes elsewhere
                    sent.append((b"connection", b"close"))
                if not any(name == b"x-request-id" for name, _ in sent):
                    sent.append((b"x-request-id", request_id))
            elif closing and not message.get("more_body", False):
                await send({**message, "more_body": True})
                ended = time.perf_counter()
                await _discard(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                # What is done after it, the caller does not wait for.
                ended = ended or time.perf_counter()

        path = scope["path"]
        counted = path not in _OPEN_PATHS
        refusal = self._refusal(headers, context) if counted else None
        if refusal is not None:
            await refusal.response()(scope, receive, send_out)
            self._record(scope, path, status, (ended or time.perf_counter()) - started, counted)
            return

        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.max_body_bytes:
                    raise _BodyTooLarge(self.max_body_bytes)
            return message

        if counted:
            self.active += 1
            self.metrics.active.set(self.active)
        try:
            await self.app(scope, receive_limited, send_out)
        except Exception as error:  # noqa: BLE001 - the last layer: nothing may leave unanswered
            await self._answer(internal_problem(error), status, scope, receive, send_out)
        finally:
            if counted:
                self.active -= 1
                self.metrics.active.set(self.active)
            self._record(scope, path, status, (ended or time.perf_counter()) - started, counted)

    def _refusal(self, headers: dict[bytes, bytes], context: RequestContext) -> Problem | None:
        """Why this request is not started, if so: decided before any of its body is read."""
        if (missing := self.readiness.missing) is not None:
            return Problem(
                503,
                "not-ready",
                f"This service cannot do its job now: {missing}. Try again shortly.",
                # The caller's next connection may lead to a replica that can.
                headers={"retry-after": "1", "connection": "close"},
            )
        if self.active >= self.max_concurrency:
            self.metrics.shed.inc()
            return Problem(
                503,
                "overloaded",
                f"All {self.max_concurrency} places are taken. Try again after the pause given.",
                headers={"retry-after": "1"},
            )
        if context.deadline.passed:
            return Problem(504, "deadline-passed", "No time was left when the request arrived.")
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.max_body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "body-too-large",
            f"The body is larger than {self.max_body_bytes} bytes. Send it in smaller parts.",
            headers={"connection": "close"},
        )

    async def _answer(
        self, problem: Problem, status: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if status:  # the answer had begun: cutting the connection is the only honest sign left
            raise problem
        await problem.response()(scope, receive, send)

    def _record(self, scope: Scope, path: str, status: int, seconds: float, counted: bool) -> None:
        if not counted:
            return
        route = _route_template(scope)
        self.metrics.observe(scope["method"], route, status, seconds)
        get_logger().info(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
        )


async def _discard(receive: Receive) -> None:
    """What is left of a refused body, for a while: a connection that is closed with unread data is
    reset, and its client would lose the answer that says why."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            while (await receive()).get("more_body", False):
                pass


def _route_template(scope: Scope) -> str:
    """`/v1/jobs/{id}` and not `/v1/jobs/7`: a metric label must have few values."""
    route: str | None = getattr(scope.get("route"), "path", None)
    if route is None:
        return "unmatched"
    # FastAPI gives a nested router's path without the prefix it was included under.
    return (
        route if route.startswith("/v1") or not scope["path"].startswith("/v1") else "/v1" + route
    )
