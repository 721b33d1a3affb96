"""The same expectations of every broker. NATS is started here; the others are tested when
`WORKSHOP_TEST_REDIS_URL` or `WORKSHOP_TEST_AMQP_URL` names a server to use."""

import asyncio
import os
import uuid
from pathlib import Path

import pytest

from services.chassis.broker import Broker, Stream
from services.chassis.testing import nats_server


@pytest.fixture(scope="module", params=["nats", "redis", "amqp"])
def url(request, tmp_path_factory):
    if request.param == "nats":
        with nats_server(Path(tmp_path_factory.mktemp("nats"))) as url:
            yield url
        return
    variable = f"WORKSHOP_TEST_{request.param.upper()}_URL"
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set")
    yield os.environ[variable]


@pytest.fixture
def stream():
    name = uuid.uuid4().hex[:8]
    return Stream(f"T{name}", f"t{name}.>", ("workers",), work_queue=True, max_bytes=1_000_000)


async def until(condition, seconds=20.0):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass")


async def publish(broker, stream, *bodies):
    for body in bodies:
        subject = stream.subjects.replace(">", "x")
        id = body.decode()
        await broker.publish(stream, subject, body, message_id=id, headers={"traceparent": "t"})


async def test_what_is_published_before_the_first_consumer_is_consumed_once(url, stream):
    publisher = Broker(url, client="publisher", streams=(stream,), timeout=15)
    publisher.start()
    await publish(publisher, stream, b"1", b"2", b"3")
    seen = []

    async def take(delivery):
        seen.append((delivery.body, delivery.headers["traceparent"]))
        await delivery.ack()

    consumer = Broker(url, client="consumer", streams=(stream,))
    consumer.subscribe(stream, "workers", take, workers=2, ack_wait=1.0)
    consumer.start()
    await until(lambda: len(seen) == 3)
    await asyncio.sleep(1.5)  # longer than `ack_wait`: nothing may come again
    assert sorted(seen) == [(b"1", "t"), (b"2", "t"), (b"3", "t")]
    await consumer.stop()
    await publisher.stop()


async def test_what_is_not_acknowledged_comes_again(url, stream):
    """Left without an end by a consumer that stops; then refused once; then taken."""
    taken = asyncio.Event()

    async def vanish(delivery):
        taken.set()
        await asyncio.sleep(3600)

    first = Broker(url, client="first", streams=(stream,), timeout=15, drain=0.1)
    first.subscribe(stream, "workers", vanish, ack_wait=1.0)
    first.start()
    await publish(first, stream, b"job")
    await asyncio.wait_for(taken.wait(), 15)
    await first.stop()
    attempts = []

    async def second_try(delivery):
        attempts.append(delivery.body)
        await (delivery.retry(0.1) if len(attempts) == 1 else delivery.ack())

    second = Broker(url, client="second", streams=(stream,))
    second.subscribe(stream, "workers", second_try, ack_wait=1.0)
    second.start()
    await until(lambda: len(attempts) == 2)
    await asyncio.sleep(1.5)
    assert attempts == [b"job", b"job"]
    await second.stop()


async def test_a_stream_is_made_with_as_many_copies_as_the_url_says(tmp_path, stream):
    with nats_server(tmp_path) as url:
        broker = Broker(f"{url}?replicas=3", client="publisher", streams=(stream,), timeout=1)
        await broker._driver.broker.connect()
        with pytest.raises(Exception, match="replicas > 1 not supported in non-clustered mode"):
            await broker._driver.declare(stream)
        await broker.stop()
