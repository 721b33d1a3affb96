import asyncio
import contextlib
import socket
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.chassis import (
    BadAnswer,
    Breaker,
    BreakerOpen,
    DeadlineExceeded,
    Rejected,
    RequestContext,
    ServiceClient,
    Unavailable,
    encode_event,
    parse_events,
    use_context,
)


class Seen:
    """What the server noticed of its callers."""

    def __init__(self):
        self.calls = 0
        self.cancelled = asyncio.Event()


SEEN = web.AppKey("seen", Seen)


@pytest.fixture
async def server():
    app = web.Application()
    app[SEEN] = seen = Seen()

    async def headers(request):
        return web.json_response({k.lower(): v for k, v in request.headers.items()})

    async def status(request):
        seen.calls += 1
        code = int(request.match_info["code"])
        return web.json_response({"detail": "said no"}, status=code)

    async def slow(request):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.cancelled.set()
            raise
        return web.Response()

    async def text(request):
        return web.Response(text="not json")

    async def stream(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            await response.write(encode_event({"n": number}, "token"))
        return response

    app.router.add_route("*", "/headers", headers)
    app.router.add_route("*", "/status/{code}", status)
    app.router.add_route("*", "/slow", slow)
    app.router.add_route("*", "/text", text)
    app.router.add_route("*", "/stream", stream)
    async with TestServer(app, handler_cancellation=True) as server:
        yield server


@pytest.fixture
async def client(server):
    client = ServiceClient("other", str(server.make_url("")), timeout=5)
    yield client
    await client.aclose()


@pytest.fixture
async def always_answering():
    """A client of a server that always answers the same."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(status, content):
            app = web.Application()

            async def answer(_):
                return web.json_response(content, status=status)

            app.router.add_get("/", answer)
            server = await stack.enter_async_context(TestServer(app))
            client = ServiceClient("other", str(server.make_url("")))
            stack.push_async_callback(client.aclose)
            return client

        yield start


async def test_the_context_travels_with_the_call(client):
    with use_context(RequestContext.new(2.0, "req-9")) as context:
        sent = await client.get("/headers")
    assert sent["x-request-id"] == "req-9"
    assert sent["traceparent"].split("-")[1:3] == [context.trace_id, context.span_id]
    assert 1000 < int(sent["x-deadline-ms"]) <= 2000


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/status/503", Unavailable),
        ("/status/500", BadAnswer),
        ("/status/504", DeadlineExceeded),
        ("/status/422", Rejected),
        ("/text", BadAnswer),
    ],
)
async def test_failures_are_told_apart(client, path, error):
    with pytest.raises(error):
        await client.post(path, {})


async def test_a_rejection_carries_the_problem(client):
    with pytest.raises(Rejected) as caught:
        await client.post("/status/422", {})
    assert caught.value.status == 422
    assert caught.value.reason == "said no"


async def test_nobody_listening_is_unavailable():
    client = ServiceClient("gone", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="gone"):
        await client.get("/")
    await client.aclose()


async def test_the_deadline_ends_the_wait_and_frees_the_server(client, server):
    loop = asyncio.get_running_loop()
    started = loop.time()
    with use_context(RequestContext.new(0.1)), pytest.raises(DeadlineExceeded):
        await client.post("/slow", {})
    assert loop.time() - started < 1
    await asyncio.wait_for(server.app[SEEN].cancelled.wait(), 2)


async def test_no_call_is_made_without_time_left(client, server):
    with use_context(RequestContext.new(0)), pytest.raises(DeadlineExceeded):
        await client.get("/status/200")
    assert server.app[SEEN].calls == 0


async def test_five_failures_open_the_breaker_and_4xx_do_not(client, server):
    for _ in range(6):
        with pytest.raises(Rejected):
            await client.get("/status/404")
    for _ in range(5):
        with pytest.raises(BadAnswer):
            await client.get("/status/500")
    assert server.app[SEEN].calls == 11
    with pytest.raises(Unavailable) as caught:
        await client.get("/status/200")
    assert caught.value.called is False
    assert server.app[SEEN].calls == 11


async def test_events_arrive_one_by_one(client):
    events = [event async for event in client.stream("/stream", {})]
    assert [event.event for event in events] == ["token"] * 3
    assert [event.json() for event in events] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_stream_that_is_left_early_closes_the_breaker_all_the_same(client):
    for path in ["/status/500"] * client.breaker.circuit.threshold:
        with pytest.raises(BadAnswer):
            await client.post(path, {})
    client.breaker.circuit.reset = 0.0
    async with contextlib.aclosing(client.stream("/stream", method="GET")) as events:
        await anext(events)
        assert client.breaker.state == "closed"
    assert client.breaker.state == "closed"


async def test_events_survive_any_chunking():
    raw = encode_event({"t": "olá"}, "token") + b": comment\r\ndata: 1\r\ndata: 2\r\n\r\n"

    async def bytewise():
        for byte in raw:
            yield bytes([byte])

    events = [event async for event in parse_events(bytewise())]
    assert events[0].json() == {"t": "olá"}
    assert (events[1].event, events[1].data) == ("message", "1\n2")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def fail(breaker):
    with pytest.raises(ValueError, match="x"), breaker.attempt():
        raise ValueError("x")


def test_a_breaker_lets_one_probe_through_and_its_success_closes_it():
    clock = Clock()
    breaker = Breaker("d", threshold=2, reset=1.0, clock=clock)
    fail(breaker)
    fail(breaker)
    assert breaker.state == "open"
    clock.now = 1.0
    assert breaker.state == "half-open"
    with breaker.attempt(), pytest.raises(BreakerOpen), breaker.attempt():
        pass
    assert breaker.state == "closed"


def test_a_failed_probe_opens_the_breaker_again_for_the_whole_pause():
    clock = Clock()
    breaker = Breaker("d", threshold=1, reset=1.0, clock=clock)
    fail(breaker)
    clock.now = 1.0
    fail(breaker)
    clock.now = 1.9
    with pytest.raises(BreakerOpen) as caught, breaker.attempt():
        pass
    assert caught.value.retry_after == pytest.approx(0.1)


def test_a_success_in_between_resets_the_count():
    breaker = Breaker("d", threshold=2)
    fail(breaker)
    with breaker.attempt():
        pass
    fail(breaker)
    assert breaker.state == "closed"


def test_a_probe_whose_caller_leaves_makes_way_for_the_next():
    clock = Clock()
    breaker = Breaker("d", threshold=1, reset=1.0, clock=clock)
    fail(breaker)
    clock.now = 1.0
    with pytest.raises(asyncio.CancelledError), breaker.attempt():
        raise asyncio.CancelledError
    assert breaker.state == "half-open"
    with breaker.attempt():
        pass
    assert breaker.state == "closed"


@pytest.mark.parametrize("late", [None, ValueError("x")])
def test_a_call_begun_before_the_breaker_opened_changes_nothing_when_it_ends(late):
    clock = Clock()
    breaker = Breaker("d", threshold=1, reset=1.0, clock=clock)
    old = breaker.attempt()
    old.__enter__()
    fail(breaker)
    clock.now = 1.0
    with breaker.attempt():
        old.__exit__(late and type(late), late, None)
        assert breaker.state == "half-open"
        with pytest.raises(BreakerOpen), breaker.attempt():
            pass
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    ("problem", "state"),
    [({"type": "urn:rag-workshop:problem:overloaded"}, "closed"), ({}, "open")],
)
async def test_a_service_that_refuses_in_our_form_is_not_given_up(always_answering, problem, state):
    client = await always_answering(503, problem)
    for _ in range(client.breaker.circuit.threshold):
        with pytest.raises(Unavailable):
            await client.get("/")
    assert client.breaker.state == state


async def test_a_machine_that_is_silent_is_unavailable_long_before_the_deadline():
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as sockets:
        # A listener whose queue is full drops what arrives, as a machine does that is gone.
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = ServiceClient("other", url, timeout=20)
        started = loop.time()
        try:
            with pytest.raises(Unavailable, match="no connection") as caught:
                await client.get("/")
            assert caught.value.called is False
        finally:
            await client.aclose()
        assert loop.time() - started < 1


async def test_a_process_that_is_held_up_while_it_connects_does_not_take_the_other_for_gone(
    monkeypatch, always_answering
):
    """The processor is somebody else's for a while: the timer is due before the loop looks."""
    client = await always_answering(200, {"well": True})
    loop = asyncio.get_running_loop()
    connect, held_up = loop.sock_connect, []

    async def late(*to):
        await connect(*to)
        if not held_up:
            held_up.append(to)
            time.sleep(0.4)  # noqa: ASYNC251 - the loop stands still
            await asyncio.sleep(0.01)

    monkeypatch.setattr(loop, "sock_connect", late)
    assert await client.get("/") == {"well": True}
    assert held_up
