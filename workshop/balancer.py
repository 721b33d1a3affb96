"""A small load balancer: calls to one address go to the replicas behind it, one pick a call.

It picks for each call, where the kernel, Docker's DNS and a Kubernetes Service pick for each new
connection: callers that keep their connections open would stay with the replica that they got.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

Pick = Callable[[Sequence[int], random.Random], int]
"""(calls in flight at each replica that is up, a source of chance) → place of the next call's."""

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


def two_choices(in_flight: Sequence[int], draw: random.Random) -> int:
    """Of two replicas drawn at random, the one with fewer calls in flight.

    The power of two choices: Mitzenmacher, IEEE Transactions on Parallel and Distributed Systems
    12 (10), 2001. Envoy's LEAST_REQUEST and nginx's `random two` do the same.
    """
    places = range(len(in_flight))
    return min(draw.sample(places, min(2, len(places))), key=lambda place: in_flight[place])


@dataclass(slots=True)
class Replica:
    """One copy. `up`: it gets calls; `calls`: it has answered; `ended`: times that it went away."""

    url: str
    pid: int = 0
    up: bool = False
    in_flight: int = 0
    calls: int = 0
    ended: int = 0

    def describe(self) -> dict[str, Any]:
        told = ("url", "pid", "up", "calls", "ended")
        return {name: getattr(self, name) for name in told}


def create_app(
    replicas: Sequence[Replica], *, pick: Pick = two_choices, draw: random.Random | None = None
) -> web.Application:
    """`GET /replicas` tells about them; every other request goes to one that is up.

    A replica that refuses a connection gets no calls until whoever watches it sets `up` again.
    """
    draw = draw or random.Random()
    session: aiohttp.ClientSession

    async def open_session(app: web.Application) -> Any:
        nonlocal session
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),
        )
        yield
        await session.close()

    async def tell(_: web.Request) -> web.Response:
        return web.json_response([replica.describe() for replica in replicas])

    async def forward(request: web.Request) -> web.StreamResponse:
        able = [replica for replica in replicas if replica.up]
        if not able:
            return _unavailable("no replica is up")
        replica = able[pick([item.in_flight for item in able], draw)]
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        body = await request.read()
        replica.in_flight += 1
        try:
            async with session.request(
                request.method,
                replica.url + request.raw_path,
                headers=headers,
                data=body or None,
                allow_redirects=False,
            ) as answer:
                passed_on = await _pass_on(request, answer)
            replica.calls += 1
            return passed_on
        except aiohttp.ClientConnectorError:
            replica.up = False
            return _unavailable("the replica that it was sent to is gone")
        except aiohttp.ServerDisconnectedError:
            return _unavailable("the replica ended in the middle of the call")
        finally:
            replica.in_flight -= 1

    app = web.Application(client_max_size=2**26)
    app.cleanup_ctx.append(open_session)
    app.router.add_get("/replicas", tell)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
    if answer.content_length is not None:
        return web.Response(body=await answer.read(), status=answer.status, headers=headers)
    streamed = web.StreamResponse(status=answer.status, headers=headers)
    await streamed.prepare(request)
    async for part in answer.content.iter_any():
        await streamed.write(part)
    await streamed.write_eof()
    return streamed


def _unavailable(why: str) -> web.Response:
    problem = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": f"{why[0].upper()}{why[1:]}. Ask again in a second.",
    }
    return web.json_response(
        problem,
        status=503,
        headers={"retry-after": "1"},
        content_type="application/problem+json",
    )
