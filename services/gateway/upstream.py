"""Calls to the services behind: cancelled with their caller, failures made presentable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.chassis import (
    CallFailed,
    DeadlineExceeded,
    Problem,
    Rejected,
    ServerSentEvent,
    ServiceClient,
    Unavailable,
    current,
    encode_event,
    get_logger,
)
from services.chassis.problems import TYPE_BASE, internal_problem
from services.chassis.sse import HEADERS, MEDIA_TYPE

from .domain import scrubbed

T = TypeVar("T")
_OWN_MEMBERS = {"type", "title", "status", "detail", "request_id"}


class CallerLeft(Exception):
    """Nobody waits for the answer any more."""

    @staticmethod
    async def answer(_: Any, __: Exception) -> Response:
        return Response(status_code=499)  # nginx's code: for the log and the metrics only


def problem_of(error: CallFailed) -> Problem:
    """What the caller may know of a failed inner call: never an address."""
    get_logger().warning("upstream_failed", service=error.service, reason=error.reason)
    document = error.problem
    kind = str(document.get("type", "")).removeprefix(TYPE_BASE)
    known = str(document.get("type", "")).startswith(TYPE_BASE)
    extra = scrubbed({k: v for k, v in document.items() if k not in _OWN_MEMBERS})
    detail = scrubbed(str(document.get("detail", "")))
    if isinstance(error, Rejected) and error.status not in (401, 403, 405, 407):
        return Problem(
            error.status or 422,
            kind if known else "refused",
            detail or f"{error.service} refused the request.",
            **extra,
        )
    if isinstance(error, DeadlineExceeded):
        return Problem(
            504,
            "deadline-passed",
            f"{error.service} did not answer in time. Try again, or ask for less.",
            **({"service": error.service} | extra),
        )
    if isinstance(error, Unavailable):
        own = known and kind != "not-ready"
        return Problem(
            503,
            kind if own else f"{error.service.replace('_', '-')}-unavailable",
            detail if own else f"{error.service} is not available right now. Try again shortly.",
            headers={"retry-after": "1"},
            **({"service": error.service} | extra),
        )
    return Problem(
        502,
        "bad-answer",
        f"{error.service} failed to answer properly; it is in the log under this request id.",
        service=error.service,
    )


async def call(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """`work`, cancelled as soon as the caller of `request` leaves. The body must have been read.

    Raises Problem when the inner call fails and `CallerLeft` when nobody waits.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallerLeft
        return task.result()
    except CallFailed as error:
        raise problem_of(error) from error
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def upload(
    request: Request, client: ServiceClient, path: str, *, timeout: float
) -> dict[str, Any]:
    """Hand the body on as it arrives: never more than the buffers of two sockets in memory.

    When the body breaks off, the inner call is cancelled and not failed: it is the caller's
    fault, and must not open the breaker of the service behind.
    """
    broken: Exception | None = None

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal broken
        try:
            async for chunk in request.stream():
                if chunk:
                    yield chunk
        except (HTTPException, ClientDisconnect) as error:
            broken = error
            task.cancel()
            await asyncio.Event().wait()

    headers = {"content-type": request.headers.get("content-type", "")}
    if length := request.headers.get("content-length"):
        headers["content-length"] = length
    task = asyncio.ensure_future(
        client.request("POST", path, chunks(), timeout=timeout, headers=headers)
    )
    try:
        answer: dict[str, Any] = await task
    except asyncio.CancelledError:
        if broken is None:
            task.cancel()
            raise
        raise (CallerLeft() if isinstance(broken, ClientDisconnect) else broken) from None
    except CallFailed as error:
        raise problem_of(error) from error
    return answer


class EventResponse(StreamingResponse):
    """Server-sent events, one write each. However it ends, the inner connection ends with it.

    A write waits while the caller does not read, and the inner stream is not read meanwhile.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, media_type=MEDIA_TYPE, headers=HEADERS)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def open_stream(
    request: Request, events: AsyncGenerator[ServerSentEvent, None]
) -> AsyncGenerator[ServerSentEvent, None]:
    """The same events, once the first has come: until then a failure is a Problem with a status."""
    pumped = _pumped(events)
    try:
        first = await call(request, _first(pumped))
    except BaseException:
        await pumped.aclose()
        raise

    async def all_of_them() -> AsyncGenerator[ServerSentEvent, None]:
        async with aclosing(pumped):
            if first is not None:
                yield first
                async for event in pumped:
                    yield event

    return all_of_them()


async def _pumped(
    events: AsyncGenerator[ServerSentEvent, None],
) -> AsyncGenerator[ServerSentEvent, None]:
    """`events`, read by one task of its own that is cancelled when this generator closes.

    The first event is awaited before the answer starts and the others while it is sent, in
    different tasks; a connection with a timeout must stay in one. The queue of one keeps the
    back-pressure: nothing is read ahead of a caller who does not read.
    """
    queue: asyncio.Queue[ServerSentEvent | Exception | None] = asyncio.Queue(1)

    async def pump() -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    await queue.put(event)
        except Exception as error:  # noqa: BLE001 - raised again by the reader
            await queue.put(error)
        else:
            await queue.put(None)

    task = asyncio.create_task(pump())
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _first(events: AsyncGenerator[ServerSentEvent, None]) -> ServerSentEvent | None:
    return await anext(events, None)


async def passed_on(events: AsyncGenerator[ServerSentEvent, None]) -> AsyncGenerator[bytes, None]:
    """Events as they came. A failure after the first is an `error` event, never a silence."""
    try:
        async with aclosing(events):
            async for event in events:
                if event.event == "error":
                    document = event.json()
                    yield encode_event(scrubbed(document), "error")
                else:
                    yield _wire(event)
    except CallFailed as error:
        yield encode_event(problem_of(error).document(current().request_id), "error")
    except Exception as error:  # noqa: BLE001 - the status line is gone; an event must say it
        yield encode_event(internal_problem(error).document(current().request_id), "error")


def _wire(event: ServerSentEvent) -> bytes:
    lines = "".join(f"data: {line}\n" for line in event.data.split("\n"))
    return f"event: {event.event}\n{lines}\n".encode()


def inner_path(prefix: str, name: str) -> str:
    """`prefix/name` with `name` as data: it can not climb to another path of the service."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise Problem(404, "not-found", "There is no such id.")
    return f"{prefix}/{quote(name, safe='/')}"
