"""The HTTP client between services.

It carries the request's context, never waits longer than the deadline, and tells failures apart
by what the caller can do about them. It does not retry: one layer does, and that is the
orchestrator (several layers that retry multiply each other's calls).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import orjson
from aiohttp.abc import ResolveResult

from .breaker import Breaker, BreakerOpen
from .context import current
from .problems import TYPE_BASE
from .sse import ServerSentEvent, parse_events


class CallFailed(Exception):
    """A call to another service gave no usable answer. `service` names it.

    `status` and `problem` hold its answer, if it gave one; `called` is False when the call was not
    made: the breaker or the deadline kept it, or nobody was there in the time for a connection.
    `retry_after` is the pause that it asked for, in seconds.
    """

    def __init__(
        self,
        service: str,
        reason: str,
        *,
        status: int | None = None,
        problem: dict[str, Any] | None = None,
        called: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{service}: {reason}")
        self.service = service
        self.reason = reason
        self.status = status
        self.problem = problem or {}
        self.called = called
        self.retry_after = retry_after


class Unavailable(CallFailed):
    """Not reachable, overloaded, or its breaker is open. Nothing is known to have been done."""


class DeadlineExceeded(CallFailed):
    """The time ran out before the answer came."""


class Rejected(CallFailed):
    """The service refused the request (4xx): repeating it will not help."""


class BadAnswer(CallFailed):
    """The service failed (5xx) or did not answer in the agreed form."""


def not_to_blame(error: BaseException) -> bool:
    """A service that refuses in our own form is alive and costs no time, whether it is overloaded
    or names another that is gone. To count that would make the breakers open all the way up."""
    if isinstance(error, Unavailable) and error.status == 503:
        return str(error.problem.get("type", "")).startswith(TYPE_BASE)
    return isinstance(error, Rejected) or not isinstance(error, Exception)


class _Addresses(aiohttp.ThreadedResolver):
    """DNS that keeps no caller waiting, and how many addresses the name had: each is a replica.

    Docker's DNS knows the name of a container that runs. For any other it asks servers that an
    internal network does not reach, and that takes ten seconds.
    """

    count = 0
    _lookup: asyncio.Task[list[ResolveResult]] | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.create_task(super().resolve(host, port, family))
            self._lookup.add_done_callback(_seen)
        await asyncio.wait({self._lookup}, timeout=_DNS_PATIENCE)
        if not self._lookup.done():
            raise OSError(errno.ETIMEDOUT, "DNS does not answer")
        found = self._lookup.result()
        self.count = len(found)
        return found

    async def close(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()


def _seen(lookup: asyncio.Task[list[ResolveResult]]) -> None:
    """Whoever waited for it may have left: what it raised is then nobody's."""
    if not lookup.cancelled():
        lookup.exception()


class ServiceClient:
    """Client of one service. Make it inside a running event loop; close it with `aclose()`.

    `timeout` caps each call in seconds; the request's deadline caps it further. Where the name in
    `base_url` has several addresses, new connections go to them in turn, past one that is gone, and
    no connection lasts: replicas that are added get their share.
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        *,
        timeout: float = 10.0,
        breaker: Breaker | None = None,
        connections: int = 100,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.service = service
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.breaker = breaker or Breaker(service, ignore=not_to_blame)
        self._addresses, self._calls = _Addresses(), 0
        # Without a cookie jar, proxies or redirects: a hop between services needs none of them,
        # and each costs CPU on every call.
        self._connector = aiohttp.TCPConnector(
            limit=connections,
            keepalive_timeout=30,
            resolver=self._addresses,
            ttl_dns_cache=_DNS_SECONDS,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            headers=headers,
            auto_decompress=False,
        )

    async def aclose(self) -> None:
        await self._session.close()
        await self._addresses.close()

    async def get(self, path: str, *, timeout: float | None = None) -> Any:
        return await self.request("GET", path, timeout=timeout)

    async def post(self, path: str, body: Any, *, timeout: float | None = None) -> Any:
        return await self.request("POST", path, body, timeout=timeout)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The decoded JSON answer (None for an empty body). Raises a `CallFailed`.

        `body` is sent as JSON, unless it is bytes or an async iterator of bytes, which go as they
        are; name their type in `headers`.
        """
        asked = 0
        while True:
            asked += 1
            try:
                raw = await self._read(method, path, body, timeout, headers)
                break
            except Unavailable as error:
                # Docker's DNS names a replica before it is ready. It has begun nothing, and another
                # may be: to ask that one is no retry. A new look-up may name the first one again.
                starting = error.problem.get("type") == TYPE_BASE + "not-ready"
                replicas = self._addresses.count
                last = replicas < 2 or asked > replicas or isinstance(body, AsyncIterable)
                if not starting or last:
                    raise
        if not raw:
            return None
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BadAnswer(self.service, "answered something that is not JSON") from error

    async def _read(self, *request: Any) -> bytes:
        async with self._open(*request) as (response, _):
            return await response.read()

    async def stream(
        self,
        path: str,
        body: Any = None,
        *,
        method: str = "POST",
        timeout: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Server-sent events of an answer. Closing the generator closes the connection."""
        async with self._open(method, path, body, timeout, headers) as (response, it_answers):
            async for event in parse_events(response.content.iter_any()):
                it_answers()
                yield event

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        body: Any,
        timeout: float | None,
        headers: dict[str, str] | None,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Callable[[], None]]]:
        context = current()
        seconds = min(timeout or self.timeout, context.deadline.left)
        if seconds <= 0:
            raise DeadlineExceeded(self.service, "no time left to call it", called=False)
        sent = context.headers(seconds)
        self._calls += 1
        if self._calls % (_CALLS_AMONG_REPLICAS if self._addresses.count > 1 else _CALLS) == 0:
            sent["connection"] = "close"
        data = None
        if body is not None:
            data = body if isinstance(body, bytes | AsyncIterable) else orjson.dumps(body)
            sent["content-type"] = "application/json"
        if headers:
            sent |= headers
        try:
            with self.breaker.attempt() as it_answers:
                try:
                    async with (
                        asyncio.timeout(seconds),
                        await self._begin(method, path, data=data, headers=sent) as response,
                    ):
                        if response.status >= 400:
                            await self._raise_for(response)
                        yield response, it_answers
                except aiohttp.ConnectionTimeoutError as error:
                    self._connector.clear_dns_cache()
                    raise Unavailable(
                        self.service, "not reachable (no connection)", called=False
                    ) from error
                except TimeoutError as error:
                    raise DeadlineExceeded(
                        self.service, f"no answer within {seconds * 1000:.0f} ms"
                    ) from error
                except aiohttp.ClientPayloadError as error:
                    raise BadAnswer(self.service, "the connection broke mid-answer") from error
                except (aiohttp.ClientConnectionError, OSError) as error:
                    self._connector.clear_dns_cache()  # its next process may be at another address
                    silent = getattr(error, "errno", None) == errno.ETIMEDOUT
                    raise Unavailable(
                        self.service, f"not reachable ({error})", called=not silent
                    ) from error
                except aiohttp.ClientError as error:
                    raise BadAnswer(self.service, f"protocol error ({error})") from error
        except BreakerOpen as error:
            raise Unavailable(self.service, str(error), called=False) from error

    async def _begin(self, method: str, path: str, **sent: Any) -> aiohttp.ClientResponse:
        """Send the request; the answer's head. Raises what aiohttp raises.

        A second try to connect is short, and not for the other side: a process that had to wait for
        the processor sees its own timer before it sees that it was connected.
        """
        ask = partial(
            self._session.request, method, self.base_url + path, allow_redirects=False, **sent
        )
        try:
            return await ask(timeout=_CONNECT)
        except aiohttp.ConnectionTimeoutError:
            self._connector.clear_dns_cache()
            return await ask(timeout=_CONNECT_AGAIN)

    async def _raise_for(self, response: aiohttp.ClientResponse) -> None:
        raw = await response.read()
        try:
            problem = orjson.loads(raw)
        except orjson.JSONDecodeError:
            problem = {}
        if not isinstance(problem, dict):
            problem = {}
        detail = str(problem.get("detail") or f"HTTP {response.status}")
        # It may be a date as well (RFC 9110, 10.2.3); services and LLM servers send seconds.
        pause = response.headers.get("retry-after", "")
        raise _kind_of(response.status)(
            self.service,
            detail,
            status=response.status,
            problem=problem,
            retry_after=float(pause) if pause.isdecimal() else None,
        )


def _kind_of(status: int) -> type[CallFailed]:
    if status in (502, 503):
        return Unavailable
    if status == 504:
        return DeadlineExceeded
    return BadAnswer if status >= 500 else Rejected


# `asyncio.timeout` covers the whole exchange; a second timer in aiohttp would only cost CPU. A new
# connection has its own: a machine that is gone does not refuse, it is silent. Services are near
# one another, so what takes longer than this will not come.
_CONNECT = aiohttp.ClientTimeout(total=None, sock_connect=0.25)
_CONNECT_AGAIN = aiohttp.ClientTimeout(total=None, sock_connect=0.1)
_DNS_PATIENCE = 0.3
_DNS_SECONDS = 1
# After so many calls one connection ends with its answer, and the next is made anew: a tenth of a
# millisecond of CPU. Among replicas it is what shares the load out, so there it comes sooner.
_CALLS = 50
_CALLS_AMONG_REPLICAS = 10
