"""What the gateway does before any route runs: who calls, how often, how much, how slowly.

Two plain ASGI layers. `Shield` lies around everything and marks every answer; `Edge` lies inside
the chassis layer, so that what it refuses is logged and counted like any other request.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import orjson
from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.chassis import Problem
from services.chassis.problems import MEDIA_TYPE as PROBLEM_TYPE

from .chat import with_error
from .keys import KeyRing
from .quotas import Quotas, caller_of_address, rate_headers
from .settings import Settings

_VERSION = re.compile(r"^/v(\d+)(/|$)")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OPENAI_PATHS = ("/v1/chat/", "/v1/models")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Shield:
    """Security headers on every answer. `docs_csp` is the policy of `/docs` alone.

    On OpenAI's paths a problem document also gets the member that OpenAI's clients read.
    """

    def __init__(self, app: ASGIApp, *, docs_csp: str) -> None:
        self.app = app
        common = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        self._headers = [*common, (b"content-security-policy", _CSP.encode())]
        self._docs_headers = [*common, (b"content-security-policy", docs_csp.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        added = self._docs_headers if scope["path"] == "/docs" else self._headers
        # What is answered under /v1 belongs to one caller: no shared cache may keep it.
        private = scope["path"].startswith("/v1")

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                if private and not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers + added}
            await send(message)

        openai = scope["path"].startswith(_OPENAI_PATHS)
        await self.app(scope, receive, _with_error(send_marked) if openai else send_marked)


class BodyTooSlow(HTTPException):
    """An HTTPException, because FastAPI turns any other error while reading a body into a 400."""

    def __init__(self, seconds: float) -> None:
        super().__init__(408, f"The body did not arrive in time (limit {seconds:g} s).")

    @staticmethod
    async def answer(_: Any, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Problem(
            408,
            "body-too-slow",
            f"{error.detail} Send the request again.",
            headers={"connection": "close"},
        ).response()


class Edge:
    """Version, caller, quota and body limits, in that order; then the routes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        keys: KeyRing,
        quotas: Quotas,
        registry: CollectorRegistry,
        openapi: Callable[[], dict[str, Any]],
    ) -> None:
        self.app = app
        self.settings = settings
        self.keys = keys
        self.quotas = quotas
        self._openapi = openapi
        self._origins = frozenset(settings.cors_origins)
        self._refused = Counter(
            "gateway_refused", "Requests refused at the edge.", ("reason",), registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        headers = dict(scope["headers"])
        limits: dict[str, str] = {}
        try:
            _check_version(path)
            if method == "OPTIONS":
                await self._options(path)(scope, receive, send)
                return
            if path.startswith("/v1"):
                caller = self._caller(scope, headers)
                limits = await self._count(caller)
            elif path == "/metrics" and self.keys.configured and not _is_loopback(scope):
                self._key_name(headers)
            receive = self._limited(path, headers, receive)
        except Problem as problem:
            self._refused.labels(problem.kind).inc()
            await problem.response()(scope, receive, send)
            return
        if method == "HEAD":
            # A route for GET answers HEAD too (RFC 9110, §9.3.2); the server drops the body.
            scope["method"] = "GET"
            send = _without_body(send)
        try:
            await self.app(scope, receive, _with_headers(send, limits) if limits else send)
        finally:
            scope["method"] = method

    def _caller(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """Who calls, as the name that limits are counted for. Raises Problem (401, 403)."""
        if self.keys.configured:
            return "key:" + self._key_name(headers)
        address = (scope.get("client") or ("", 0))[0]
        if self.settings.anonymous == "loopback":
            if not _is_loopback(scope):
                raise _unauthorized(
                    "No API key is configured, so only this machine may call. Configure keys with "
                    "GATEWAY_API_KEYS_FILE to let others in."
                )
            self._check_host(headers)
        self._check_origin(scope, headers)
        return caller_of_address(address)

    def _key_name(self, headers: Mapping[bytes, bytes]) -> str:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        key = given.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        if not key:
            raise _unauthorized(
                "Send an API key as `Authorization: Bearer KEY` or in the header `x-api-key`."
            )
        name = self.keys.name_of(key.decode("latin-1"))
        if name is None:
            raise _unauthorized("This API key is not known here.", ', error="invalid_token"')
        return name

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Without keys, a page elsewhere whose name was rebound to this machine must not get in."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in self.settings.allowed_hosts:
            raise Problem(
                403,
                "host-not-allowed",
                "This host name is not one of GATEWAY_ALLOWED_HOSTS, which is needed while no API "
                "key is configured.",
            )

    def _check_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Without keys, the page of another site could post in a visitor's name (CSRF)."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or scope["method"] in _SAFE or origin in self._origins:
            return
        if urlsplit(origin).netloc.lower() != headers.get(b"host", b"").decode("latin-1").lower():
            raise Problem(
                403,
                "origin-not-allowed",
                "Pages of other sites may not call while no API key is configured. Add the site "
                "to GATEWAY_CORS_ORIGINS to allow it.",
            )

    async def _count(self, caller: str) -> dict[str, str]:
        """The rate headers of this request. Raises Problem (429)."""
        allowed, allowances = await self.quotas.take(caller)
        headers = rate_headers(allowances)
        if not allowed:
            last = allowances[-1]
            what = "requests in a short time" if last.name == "rate" else "requests for now"
            raise Problem(
                429,
                "rate-limited" if last.name == "rate" else "quota-used-up",
                f"Too many {what}: {last.amount} are allowed in {last.window} s. "
                f"Try again in {last.reset} s.",
                headers={**headers, "retry-after": str(last.reset)},
            )
        return headers

    def _limited(self, path: str, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        """`receive` that gives up on a body that is too large or too slow."""
        settings = self.settings
        document = path == "/v1/documents"
        limit = settings.max_body_bytes if document else settings.max_json_bytes
        seconds = settings.upload_deadline if document else settings.body_time
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            raise Problem(
                413,
                "body-too-large",
                f"The body is larger than the {limit} bytes that are accepted here.",
                headers={"connection": "close"},
            )
        received, complete = 0, False
        end = time.monotonic() + seconds

        async def receive_limited() -> Message:
            nonlocal received, complete
            if complete:  # what comes now is the caller's leaving, which may take its time
                return await receive()
            pause = min(settings.body_pause, end - time.monotonic())
            try:
                async with asyncio.timeout(pause):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(seconds if pause < settings.body_pause else pause) from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if received > limit:
                    raise HTTPException(
                        413, f"The body is larger than the {limit} bytes that are accepted here."
                    )
            return message

        return receive_limited

    def _options(self, path: str) -> Response:
        """Which methods a path takes. A preflight of an allowed site never comes this far."""
        allowed = set()
        for template, methods in self._openapi()["paths"].items():
            if re.fullmatch(re.sub(r"\\{\w+\\}", ".+", re.escape(template)), path):
                allowed |= {name.upper() for name in methods} & set(_METHODS)
        if not allowed:
            raise Problem(404, "not-found", "There is nothing at this path. See /docs.")
        if "GET" in allowed:
            allowed.add("HEAD")
        return Response(status_code=204, headers={"allow": ", ".join(sorted(allowed))})


def _check_version(path: str) -> None:
    match = _VERSION.match(path)
    if match and match[1] != "1":
        raise Problem(
            404,
            "unknown-version",
            f"There is no version {match[1]} of this API. Use /v1, described at /docs.",
        )


def _is_loopback(scope: Scope) -> bool:
    try:
        return ip_address((scope.get("client") or ("", 0))[0]).is_loopback
    except ValueError:
        return False


def _unauthorized(detail: str, more: str = "") -> Problem:
    return Problem(
        401,
        "api-key-needed",
        detail,
        headers={"www-authenticate": f'Bearer realm="rag-workshop"{more}'},
    )


def _with_headers(send: Send, added: Mapping[str, str]) -> Send:
    raw = [(name.encode(), value.encode()) for name, value in added.items()]

    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *raw]}
        await send(message)

    return send_more


def _with_error(send: Send) -> Send:
    """Adds OpenAI's `error` to a problem document; everything else passes as it comes."""
    start: Message | None = None

    async def send_error(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            if (b"content-type", PROBLEM_TYPE.encode()) in message["headers"]:
                start = message
                return
        elif start is not None:
            body = orjson.dumps(with_error(orjson.loads(message["body"])))
            kept = [item for item in start["headers"] if item[0] != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            await send({**start, "headers": [*kept, length]})
            start = None
            message = {**message, "body": body}
        await send(message)

    return send_error


def _without_body(send: Send) -> Send:
    """The head of an answer and nothing else; a stream is told at once that it may end."""
    done = False

    async def send_head(message: Message) -> None:
        nonlocal done
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            done = True
        elif not done:
            await send(message)

    return send_head
