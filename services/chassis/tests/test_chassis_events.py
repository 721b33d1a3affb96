"""The outbox on a real disk, with a real NATS server (JetStream, fsync always) where it matters."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from services.chassis import RequestContext, use_context
from services.chassis.broker import EVENTS, Broker
from services.chassis.events import Outbox
from services.chassis.testing import free_port, nats_server

NOBODY = f"nats://127.0.0.1:{free_port()}"


async def until(condition, seconds=15.0):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass")


class Reader:
    """Collects what arrives on the stream EVENTS."""

    def __init__(self, url):
        self.deliveries = []
        self.broker = Broker(url, client="reader", streams=(EVENTS,))
        self.broker.subscribe(EVENTS, "reader", self.take, workers=10)

    async def take(self, delivery):
        self.deliveries.append(delivery)
        await delivery.ack()

    @property
    def numbers(self):
        return sorted(orjson.loads(d.body)["data"]["n"] for d in self.deliveries)

    async def __aenter__(self):
        self.broker.start()
        return self

    async def __aexit__(self, *_):
        await self.broker.stop()


async def on_disk(outbox, **data):
    return await asyncio.wrap_future(outbox.append("answer.completed", data))


async def test_events_arrive_with_the_trace_of_their_request(tmp_path):
    with nats_server(tmp_path / "nats") as url:
        outbox = Outbox(tmp_path / "o.db", url, "test")
        outbox.start()
        context = RequestContext.new(request_id="abc")
        with use_context(context):
            outbox.append("answer.completed", {"n": 1}, event_id="e1")
        async with Reader(url) as reader:
            await until(lambda: reader.deliveries)
            (delivery,) = reader.deliveries
            event = orjson.loads(delivery.body)
            assert event | {"time": ""} == {
                "id": "e1",
                "type": "answer.completed",
                "time": "",
                "source": "test",
                "request_id": "abc",
                "data": {"n": 1},
            }
            received = delivery.context(5.0)
            assert (received.request_id, received.trace_id) == ("abc", context.trace_id)
            assert received.parent_id == context.span_id
        await until(lambda: outbox.backlog == 0)
        await outbox.aclose()


async def test_the_same_id_is_published_once(tmp_path):
    with nats_server(tmp_path / "nats") as url:
        outbox = Outbox(tmp_path / "o.db", url, "test")
        outbox.start()
        for n in (1, 1, 2):
            outbox.append("x", {"n": n}, event_id=f"e{n}")
        async with Reader(url) as reader:
            await until(lambda: len(reader.deliveries) == 2 and outbox.backlog == 0)
            await asyncio.sleep(0.3)
            assert reader.numbers == [1, 2]
        await outbox.aclose()


async def test_without_a_broker_events_wait_and_requests_do_not(tmp_path):
    outbox = Outbox(tmp_path / "o.db", NOBODY, "test")
    outbox.start()
    disk = threading.Event()
    outbox._thread.submit(disk.wait)  # the disk hangs
    futures = [outbox.append("x", {"n": n}) for n in range(500)]
    assert not any(future.done() for future in futures)
    disk.set()
    assert all(await asyncio.gather(*map(asyncio.wrap_future, futures)))
    assert outbox.backlog == 500
    await outbox.aclose()


async def test_a_broker_that_comes_back_gets_all(tmp_path):
    port, folder = free_port(), tmp_path / "nats"
    outbox = Outbox(tmp_path / "o.db", f"nats://127.0.0.1:{port}", "test")
    outbox.start()
    with nats_server(folder, port):
        await on_disk(outbox, n=1)
        await until(lambda: outbox.backlog == 0)
    for n in (2, 3):  # the broker has been killed
        await on_disk(outbox, n=n)
    assert outbox.backlog >= 1
    with nats_server(folder, port) as url:
        async with Reader(url) as reader:
            await until(lambda: reader.numbers == [1, 2, 3], 30)
        await until(lambda: outbox.backlog == 0)
        await outbox.aclose()


async def test_a_broker_that_lost_its_disk_is_set_up_again(tmp_path):
    port = free_port()
    outbox = Outbox(tmp_path / "o.db", f"nats://127.0.0.1:{port}", "test")
    outbox.start()
    with nats_server(tmp_path / "one", port):
        await on_disk(outbox, n=1)
        await until(lambda: outbox.backlog == 0)
    with nats_server(tmp_path / "two", port) as url:
        await on_disk(outbox, n=2)
        async with Reader(url) as reader:
            await until(lambda: reader.numbers == [2], 30)
        await outbox.aclose()


_CHILD = """
import asyncio, sys
from pathlib import Path
from services.chassis.events import Outbox

async def main():
    outbox = Outbox(Path(sys.argv[1]), sys.argv[2], "child")
    outbox.start()
    n = 0
    while True:
        waits = [outbox.append("x", {"n": n + i}, event_id=f"e{n + i}") for i in range(5)]
        await asyncio.gather(*map(asyncio.wrap_future, waits))
        n += 5
        print(n, flush=True)  # all below n are promised

asyncio.run(main())
"""


async def test_what_was_promised_survives_sigkill(tmp_path):
    path, promised = tmp_path / "o.db", 0
    with nats_server(tmp_path / "nats") as url:
        for delay in (0.2, 0.5):
            child = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-c", _CHILD, str(path), url],
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parents[3],
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
            )
            assert child.stdout.readline()
            await asyncio.sleep(delay)
            child.send_signal(signal.SIGKILL)
            printed = child.stdout.read().split()
            child.wait()
            promised = max([promised, *(int(word) for word in printed if word.isdigit())])
        assert promised > 0
        outbox = Outbox(path, url, "test")
        outbox.start()
        async with Reader(url) as reader:
            await until(lambda: outbox.backlog == 0, 30)
            await until(lambda: set(range(promised)) <= set(reader.numbers), 30)
            assert len(reader.numbers) == len(set(reader.numbers))
        await outbox.aclose()


async def test_a_full_outbox_says_so_and_fails_nobody(tmp_path):
    outbox = Outbox(tmp_path / "o.db", NOBODY, "test", max_bytes=65_536)
    kept = [await on_disk(outbox, n=n, text="x" * 4_000) for n in range(40)]
    assert kept[0] is True
    assert kept[-1] is False
    assert outbox.backlog == sum(kept)
    assert outbox._dropped._value.get() == kept.count(False)
    await outbox.aclose()
    again = Outbox(tmp_path / "o.db", NOBODY, "test", max_bytes=65_536)
    assert again.backlog == sum(kept)
    await again.aclose()


async def test_too_many_waiting_are_dropped_and_odd_data_fails_nobody(tmp_path):
    outbox = Outbox(tmp_path / "o.db", NOBODY, "test", max_pending=0)
    assert outbox.append("x", {}).result(1) is False
    await outbox.aclose()
    outbox = Outbox(tmp_path / "p.db", NOBODY, "test")
    assert outbox.append("x", {"not": object()}).result(1) is False
    assert outbox.append("x", {"n": 1}).result(5) is True
    await outbox.aclose()


async def test_a_consumer_that_fails_gets_the_message_again(tmp_path):
    with nats_server(tmp_path / "nats") as url:
        attempts = []

        async def fail_twice(delivery):
            attempts.append(delivery.attempt)
            await (delivery.retry(0.05) if len(attempts) < 3 else delivery.ack())

        broker = Broker(url, client="test", streams=(EVENTS,))
        broker.subscribe(EVENTS, "test", fail_twice)
        broker.start()
        await broker.publish(EVENTS, "events.x", b"{}", message_id="1", headers={})
        await until(lambda: len(attempts) == 3)
        await asyncio.sleep(0.2)
        assert attempts == [1, 2, 3]
        await broker.stop()


def test_services_without_events_do_not_load_a_broker_client():
    code = (
        "import sys, services.chassis, services.hybrid_search.api; "
        "print([m for m in ('nats', 'faststream') if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_unknown_scheme_is_named():
    with pytest.raises(ValueError, match="kafka"):
        Broker("kafka://x", client="test", streams=())
