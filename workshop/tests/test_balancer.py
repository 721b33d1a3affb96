"""The balancer before real servers: what it passes on, whom it picks, what it does without."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from workshop import system
from workshop.balancer import Replica, create_app, two_choices

Balanced = Callable[..., Awaitable[tuple[TestClient, list[Replica]]]]


def backend(number: int) -> web.Application:
    async def echo(request: web.Request) -> web.Response:
        said = await request.text()
        return web.json_response(
            {
                "by": number,
                "path": request.path_qs,
                "said": said,
                "trace": request.headers["trace"],
            },
            status=418,
            headers={"x-own": "kept"},
        )

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for part in (b"one\n", b"two\n"):
            await answer.write(part)
        return answer

    app = web.Application()
    app.router.add_post("/v1/echo", echo)
    app.router.add_get("/stream", stream)
    return app


@pytest.fixture
async def balanced() -> AsyncIterator[Balanced]:
    async with AsyncExitStack() as stack:

        async def start(count: int, **options: object) -> tuple[TestClient, list[Replica]]:
            replicas = []
            for number in range(count):
                server = await stack.enter_async_context(TestServer(backend(number)))
                replicas.append(Replica(str(server.make_url("")).rstrip("/"), up=True))
            app = create_app(replicas, **options)
            return await stack.enter_async_context(TestClient(TestServer(app))), replicas

        yield start


async def test_a_call_goes_through_as_it_is(balanced: Balanced) -> None:
    client, _ = await balanced(1)
    answer = await client.post("/v1/echo?a=b%2Fc", data="body", headers={"trace": "t1"})
    assert answer.status == 418
    assert answer.headers["x-own"] == "kept"
    assert await answer.json() == {"by": 0, "path": "/v1/echo?a=b/c", "said": "body", "trace": "t1"}


async def test_a_stream_goes_through(balanced: Balanced) -> None:
    client, _ = await balanced(1)
    answer = await client.get("/stream")
    assert answer.headers["content-type"] == "text/event-stream"
    assert await answer.text() == "one\ntwo\n"


async def test_pick_decides_call_by_call_on_one_connection(balanced: Balanced) -> None:
    turn = iter([1, 0, 1, 2])
    client, replicas = await balanced(3, pick=lambda in_flight, draw: next(turn))
    by = [
        (await (await client.post("/v1/echo", headers={"trace": ""})).json())["by"]
        for _ in range(4)
    ]
    assert by == [1, 0, 1, 2]
    assert [replica.calls for replica in replicas] == [1, 2, 1]
    assert [replica.in_flight for replica in replicas] == [0, 0, 0]
    told = await (await client.get("/replicas")).json()
    assert [row["calls"] for row in told] == [1, 2, 1]


async def test_a_replica_that_is_gone_gets_one_call_and_then_none(balanced: Balanced) -> None:
    client, replicas = await balanced(2, pick=lambda in_flight, draw: 0)
    replicas[0].url = f"http://127.0.0.1:{system.free_port()}"
    first, second = [await client.post("/v1/echo", headers={"trace": ""}) for _ in range(2)]
    assert (first.status, first.headers["retry-after"]) == (503, "1")
    assert first.content_type == "application/problem+json"
    assert second.status == 418
    assert (replicas[0].up, replicas[0].in_flight) == (False, 0)


async def test_without_a_replica_it_says_so(balanced: Balanced) -> None:
    client, replicas = await balanced(1)
    replicas[0].up = False
    answer = await client.get("/readyz")
    assert answer.status == 503
    assert (await answer.json())["detail"] == "No replica is up. Ask again in a second."


async def test_two_choices_never_takes_the_busiest_and_spreads_the_idle() -> None:
    draw = random.Random(1)
    assert set(Counter(two_choices([9, 1, 5], draw) for _ in range(300))) == {1, 2}
    idle = Counter(two_choices([0, 0, 0], draw) for _ in range(3000))
    assert min(idle.values()) > 800
    assert two_choices([7], draw) == 0
