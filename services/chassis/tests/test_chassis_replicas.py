"""One name, several addresses: as Docker's DNS and a headless Service of Kubernetes give them."""

import asyncio
import contextlib
import socket
import sys
import time

import pytest
from aiohttp import web

from services.chassis import ServiceClient, Unavailable
from services.chassis.problems import Problem
from services.chassis.testing import free_port

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="127.0.0.2 needs an alias there")
ADDRESSES = ("127.0.0.1", "127.0.0.2")


class Replicas:
    """Servers behind `replicas.test`, and how many calls each had."""

    def __init__(self, stack):
        self.port, self.calls, self.ready = free_port(), dict.fromkeys(ADDRESSES, 0), set(ADDRESSES)
        self._stack = stack
        self.runners = {}

    async def start(self, address):
        async def answer(request):
            self.calls[address] += 1
            if address in self.ready:
                return web.json_response({"from": address})
            problem = Problem(503, "not-ready", "The model is being read.").document("r")
            return web.json_response(problem, status=503, headers={"connection": "close"})

        app = web.Application()
        app.router.add_post("/", answer)
        self.runners[address] = runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, address, self.port).start()


@pytest.fixture
async def replicas(monkeypatch):
    look_up = socket.getaddrinfo

    def with_replicas(host, port, *more, **options):
        if host != "replicas.test":
            return look_up(host, port, *more, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ADDRESSES]

    monkeypatch.setattr(socket, "getaddrinfo", with_replicas)
    async with contextlib.AsyncExitStack() as stack:
        yield Replicas(stack)


@pytest.fixture
async def client(replicas):
    client = ServiceClient("replicas", f"http://replicas.test:{replicas.port}", timeout=5)
    yield client
    await client.aclose()


@pytest.mark.parametrize("at_once", [1, 8])
async def test_each_replica_gets_its_share(replicas, client, at_once):
    for address in ADDRESSES:
        await replicas.start(address)

    async def caller():
        for _ in range(400 // at_once):
            await client.post("/", {})

    await asyncio.gather(*(caller() for _ in range(at_once)))
    assert sum(replicas.calls.values()) == 400
    assert min(replicas.calls.values()) >= 100


async def test_a_replica_that_is_gone_costs_no_call(replicas, client):
    for address in ADDRESSES:
        await replicas.start(address)
    for _ in range(120):
        await client.post("/", {})
    await replicas.runners["127.0.0.1"].cleanup()
    await asyncio.sleep(0.01)  # its connections end
    answers = [await client.post("/", {}) for _ in range(200)]
    assert {answer["from"] for answer in answers} == {"127.0.0.2"}


async def test_a_replica_that_is_not_ready_is_passed_over(replicas, client):
    for address in ADDRESSES:
        await replicas.start(address)
    replicas.ready.remove("127.0.0.1")
    answers = [await client.post("/", {}) for _ in range(200)]
    assert {answer["from"] for answer in answers} == {"127.0.0.2"}
    assert 0 < replicas.calls["127.0.0.1"] <= 40
    replicas.ready.clear()
    with pytest.raises(Unavailable, match="The model is being read"):
        await client.post("/", {})


async def test_a_name_that_dns_does_not_answer_for_keeps_nobody_waiting(monkeypatch, replicas):
    """As Docker's DNS in an internal network, while a container restarts."""
    await replicas.start("127.0.0.1")
    asked, gone = [], True
    look_up = socket.getaddrinfo

    def slow(host, port, *more, **options):
        if host != "restarting.test":
            return look_up(host, port, *more, **options)
        asked.append(host)
        if gone:
            time.sleep(1.0)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    client = ServiceClient("restarting", f"http://restarting.test:{replicas.port}", timeout=5)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(Unavailable, match="DNS does not answer") as caught:
            await client.post("/", {})
        assert time.monotonic() - started < 0.45
        assert caught.value.called is False
    assert len(asked) == 1
    gone = False
    await asyncio.sleep(1.0)
    assert await client.post("/", {}) == {"from": "127.0.0.1"}
    await client.aclose()
