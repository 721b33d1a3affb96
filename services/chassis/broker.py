"""The message broker behind one small interface; FastStream speaks to it.

The URL's scheme chooses it: `nats://` (JetStream, the default), `redis://` (Redis Streams) or
`amqp://` (RabbitMQ). A message is published when the broker has it on disk, and a consumer's
message stays the broker's until it is acknowledged: delivery is at least once, so handlers must
be idempotent. Nothing here is imported until a service makes a `Broker`.

A cluster of NATS servers keeps as many copies of a new stream as the URL says:
`nats://host:4222?replicas=3` (1 to 5; without it one).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from .context import RequestContext, current
from .logs import get_logger


@dataclass(frozen=True)
class Stream:
    """A durable log of messages at the broker.

    `groups` are the consumer groups known beforehand: RabbitMQ and Redis keep a message only for
    groups that exist, so the publisher declares them too. Sizes in bytes, ages in seconds.
    `work_queue` deletes a message once acknowledged.
    """

    name: str
    subjects: str
    groups: tuple[str, ...]
    work_queue: bool = False
    max_bytes: int = 512 * 1024 * 1024
    max_age: float = 7 * 86_400
    duplicate_window: float = 600.0


EVENTS = Stream("EVENTS", "events.>", ("feedback",))


class BrokerUnavailable(Exception):
    """The broker did not take the message; nothing is known to be stored."""


class Delivery:
    """One delivered message. Exactly one of `ack`, `retry` and `drop` ends it."""

    def __init__(self, message: Any, attempt: int) -> None:
        self._message = message
        self.body: bytes = message.body
        self.attempt = attempt
        self.headers: dict[str, str] = {str(k): str(v) for k, v in message.headers.items()}

    def context(self, seconds: float) -> RequestContext:
        """The publisher's request id and trace, continued here with `seconds` of time."""
        known = {k.lower().encode(): v.encode() for k, v in self.headers.items()}
        known.pop(b"x-deadline-ms", None)
        return RequestContext.from_headers(known, seconds)

    async def ack(self) -> None:
        """Done. Returns when the broker has noted it, where the broker can tell."""
        await getattr(self._message, "ack_sync", self._message.ack)()

    async def retry(self, delay: float = 0.0) -> None:
        """Have it delivered again after about `delay` seconds."""
        if hasattr(self._message, "in_progress"):  # NATS keeps the time itself
            await self._message.nack(delay=delay)
        else:
            await asyncio.sleep(delay)
            await self._message.nack()

    async def drop(self) -> None:
        """Never deliver it again: it can not be understood."""
        await self._message.reject()

    async def extend(self) -> None:
        """Still at work: the broker's redelivery clock starts anew, where it has one."""
        if hasattr(self._message, "in_progress"):
            await self._message.in_progress()


Handler = Callable[[Delivery], Awaitable[None]]


@dataclass(frozen=True)
class _Subscription:
    stream: Stream
    group: str
    handler: Handler
    workers: int
    ack_wait: float


class _Driver(Protocol):
    broker: Any

    async def declare(self, stream: Stream) -> None:
        """Create the stream and its groups unless they are there."""

    async def publish(
        self, stream: Stream, subject: str, body: bytes, message_id: str, headers: dict[str, str]
    ) -> None:
        """Return when the broker has it on disk."""

    def subscribers(self, wanted: _Subscription) -> list[Any]:
        """FastStream subscribers that acknowledge nothing by themselves."""

    async def intact(self, wanted: _Subscription) -> bool:
        """False when the broker no longer knows the group (its data was lost)."""


class Broker:
    """Publishes and consumes. Connects in the background and again after every loss.

    `connected` tells whether messages can flow now. `timeout` bounds a publish and `drain` what
    running handlers get in `stop`, in seconds. Make it inside a running event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        client: str,
        streams: tuple[Stream, ...],
        timeout: float = 5.0,
        drain: float = 10.0,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self._streams = streams
        self._drain = drain
        self._driver = _driver(url, client, timeout, drain)
        self._subscriptions: list[_Subscription] = []
        self._running: dict[_Subscription, list[Any]] = {}
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._ready.is_set()

    def subscribe(
        self,
        stream: Stream,
        group: str,
        handler: Handler,
        *,
        workers: int = 1,
        ack_wait: float = 30.0,
    ) -> None:
        """Have `handler` called for each message of `stream`, up to `workers` at once.

        A message not ended within `ack_wait` seconds is delivered again. Call before `start`.
        """
        self._subscriptions.append(_Subscription(stream, group, handler, workers, ack_wait))

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_up(), name="broker")

    async def stop(self) -> None:
        """Stop taking messages, let running handlers end, disconnect."""
        self._ready.clear()
        for _ in range(10):
            if self._task is None or self._task.done():
                break
            # More than once: a client library in the middle of connecting may swallow it.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0.5)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._drain + 5):
                await self._driver.broker.stop()

    async def publish(
        self,
        stream: Stream,
        subject: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Returns once the broker has the message on disk; raises `BrokerUnavailable` otherwise.

        A second message with the same id within the stream's `duplicate_window` is stored once
        (NATS); other brokers may keep both, so consumers compare ids too.
        """
        sent = dict(headers or _trace_headers()) | {"content-type": "application/json"}
        try:
            async with asyncio.timeout(self.timeout):
                await self._ready.wait()
                await self._driver.publish(stream, subject, body, message_id, sent)
        except Exception as error:
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error

    async def _keep_up(self) -> None:
        """Connect, declare, subscribe; then look every few seconds whether all is still there."""
        log = get_logger()
        while True:
            try:
                await self._driver.broker.connect()
                for stream in self._streams:
                    await self._driver.declare(stream)
                for wanted in self._subscriptions:
                    await self._resubscribe(wanted)
                if not self.connected:
                    log.info("broker_connected")
                self._ready.set()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round tries again
                self._ready.clear()
                log.warning("broker_unavailable", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(1)
                continue
            await asyncio.sleep(5)

    async def _resubscribe(self, wanted: _Subscription) -> None:
        running = self._running.get(wanted)
        if running is not None:
            if await self._driver.intact(wanted):
                return
            for subscriber in self._running.pop(wanted):
                await subscriber.stop()
        self._running[wanted] = self._driver.subscribers(wanted)
        for subscriber in self._running[wanted]:
            subscriber(wanted.handler)
            await subscriber.start()


def _trace_headers() -> dict[str, str]:
    sent = current().headers()
    del sent["x-deadline-ms"]  # whoever asked has their answer long before the message is read
    return sent


def _driver(url: str, client: str, timeout: float, drain: float) -> _Driver:
    scheme = url.partition("://")[0]
    if scheme in ("nats", "tls"):
        return _Nats(url, client, timeout, drain)
    if scheme in ("redis", "rediss"):
        return _Redis(url, client, drain)
    if scheme in ("amqp", "amqps"):
        return _Rabbit(url, drain)
    raise ValueError(f"{scheme}:// is not a broker; use nats://, redis:// or amqp://")


class _Nats:
    """JetStream: file storage, refuses new messages when full, removes duplicates by id."""

    def __init__(self, url: str, client: str, timeout: float, drain: float) -> None:
        from faststream.nats import NatsBroker

        self.timeout = timeout
        servers, _, query = url.partition("?")
        self.replicas = int(parse_qs(query).get("replicas", ["1"])[-1])
        self.broker = NatsBroker(
            servers,
            name=client,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            connect_timeout=3,
            graceful_timeout=drain,
            logger=None,
            apply_types=False,
        )

    @property
    def _jetstream(self) -> Any:
        return self.broker.config.connection_state.stream

    async def declare(self, stream: Stream) -> None:
        from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
        from nats.js.errors import NotFoundError

        try:
            await self._jetstream.stream_info(stream.name)
        except NotFoundError:
            await self._jetstream.add_stream(
                StreamConfig(
                    name=stream.name,
                    subjects=[stream.subjects],
                    storage=StorageType.FILE,
                    num_replicas=self.replicas,
                    retention=RetentionPolicy.WORK_QUEUE
                    if stream.work_queue
                    else RetentionPolicy.LIMITS,
                    # Full means the publisher is told, and keeps the message in its outbox.
                    discard=DiscardPolicy.NEW,
                    max_bytes=stream.max_bytes,
                    max_age=stream.max_age,
                    duplicate_window=stream.duplicate_window,
                )
            )

    async def publish(
        self, stream: Stream, subject: str, body: bytes, message_id: str, headers: dict[str, str]
    ) -> None:
        await self.broker.publish(
            body,
            subject,
            stream=stream.name,
            headers=headers | {"Nats-Msg-Id": message_id},
            timeout=self.timeout,
        )

    def subscribers(self, wanted: _Subscription) -> list[Any]:
        from faststream import AckPolicy
        from faststream.nats import JStream, PullSub
        from nats.js.api import ConsumerConfig, DeliverPolicy

        subscriber = self.broker.subscriber(
            wanted.stream.subjects,
            stream=JStream(wanted.stream.name, declare=False),
            durable=wanted.group,
            pull_sub=PullSub(batch_size=wanted.workers, timeout=5.0),
            max_workers=wanted.workers,
            config=ConsumerConfig(
                ack_wait=wanted.ack_wait,
                max_deliver=-1,
                max_ack_pending=max(1_000, 4 * wanted.workers),
                deliver_policy=DeliverPolicy.ALL,
            ),
            ack_policy=AckPolicy.MANUAL,
            decoder=_nats_delivery,
            persistent=False,
        )
        return [subscriber]

    async def intact(self, wanted: _Subscription) -> bool:
        from nats.js.errors import NotFoundError

        try:
            await self._jetstream.consumer_info(wanted.stream.name, wanted.group)
        except NotFoundError:
            return False
        return True


async def _nats_delivery(message: Any) -> Delivery:
    return Delivery(message, message.raw_message.metadata.num_delivered)


def _redis_delivery(shared: bool) -> Callable[[Any], Awaitable[Delivery]]:
    async def decode(message: Any) -> Delivery:
        return _RedisDelivery(message, shared)

    return decode


class _RedisDelivery(Delivery):
    """Redis keeps a stream's entries until somebody deletes them: here, the only group."""

    def __init__(self, message: Any, shared: bool) -> None:
        super().__init__(message, 1)
        self._shared = shared

    async def ack(self) -> None:
        await self._message.ack()
        if not self._shared:
            await self._message.delete()

    async def drop(self) -> None:
        await self.ack()


async def _rabbit_delivery(message: Any) -> Delivery:
    return Delivery(message, 2 if message.raw_message.redelivered else 1)


class _Redis:
    """Redis Streams with consumer groups. Durable only with `appendfsync always`.

    A message that is not ended comes again after `ack_wait`, to whoever reads the group.
    """

    def __init__(self, url: str, client: str, drain: float) -> None:
        from faststream.redis import RedisBroker

        self.client = f"{client}-{os.getpid()}"
        self.broker = RedisBroker(
            url,
            graceful_timeout=drain,
            apply_types=False,
            logger=None,  # type: ignore[arg-type]
        )

    @property
    def _redis(self) -> Any:
        return self.broker.config.broker_config.connection.client

    async def declare(self, stream: Stream) -> None:
        from redis.exceptions import ResponseError

        for group in stream.groups:
            try:
                await self._redis.xgroup_create(stream.name, group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error) and "already exists" not in str(error):
                    raise

    async def publish(
        self, stream: Stream, subject: str, body: bytes, message_id: str, headers: dict[str, str]
    ) -> None:
        await self.broker.publish(
            body, stream=stream.name, headers=headers, correlation_id=message_id
        )

    def subscribers(self, wanted: _Subscription) -> list[Any]:
        from faststream import AckPolicy
        from faststream.redis import StreamSub

        def one(workers: int, min_idle: int | None) -> Any:
            return self.broker.subscriber(
                stream=StreamSub(
                    wanted.stream.name,
                    group=wanted.group,
                    consumer=self.client,
                    max_records=workers,
                    min_idle_time=min_idle,
                ),
                max_workers=workers,
                ack_policy=AckPolicy.MANUAL,
                decoder=_redis_delivery(len(wanted.stream.groups) > 1),
                persistent=False,
            )

        # One reads what is new, the other takes over what was read and never ended.
        return [one(wanted.workers, None), one(1, int(wanted.ack_wait * 1000))]

    async def intact(self, wanted: _Subscription) -> bool:
        groups = await self._redis.xinfo_groups(wanted.stream.name)
        return any(group["name"] in (wanted.group, wanted.group.encode()) for group in groups)


class _Rabbit:
    """RabbitMQ: a durable topic exchange a stream, a durable quorum queue a group.

    Publisher confirms are on: `publish` returns when the queues have the message on disk.
    """

    def __init__(self, url: str, drain: float) -> None:
        from faststream.rabbit import Channel, RabbitBroker

        self._channel = Channel
        self.broker = RabbitBroker(url, graceful_timeout=drain, apply_types=False, logger=None)

    def _exchange(self, stream: Stream) -> Any:
        from faststream.rabbit import ExchangeType, RabbitExchange

        return RabbitExchange(stream.name, type=ExchangeType.TOPIC, durable=True)

    def _queue(self, stream: Stream, group: str) -> Any:
        from faststream.rabbit import QueueType, RabbitQueue

        return RabbitQueue(
            f"{stream.name}.{group}",
            queue_type=QueueType.QUORUM,
            durable=True,
            routing_key=stream.subjects.replace(">", "#"),
            # Full means the publisher is told, and keeps the message in its outbox.
            arguments={"x-max-length-bytes": stream.max_bytes, "x-overflow": "reject-publish"},
        )

    async def declare(self, stream: Stream) -> None:
        exchange = await self.broker.declare_exchange(self._exchange(stream))
        for group in stream.groups:
            wanted = self._queue(stream, group)
            queue = await self.broker.declare_queue(wanted)
            await queue.bind(exchange, routing_key=wanted.routing_key)

    async def publish(
        self, stream: Stream, subject: str, body: bytes, message_id: str, headers: dict[str, str]
    ) -> None:
        await self.broker.publish(
            body,
            exchange=self._exchange(stream),
            routing_key=subject,
            persist=True,
            message_id=message_id,
            headers=dict(headers),
        )

    def subscribers(self, wanted: _Subscription) -> list[Any]:
        from faststream import AckPolicy

        return [
            self.broker.subscriber(
                self._queue(wanted.stream, wanted.group),
                self._exchange(wanted.stream),
                channel=self._channel(prefetch_count=wanted.workers),
                ack_policy=AckPolicy.MANUAL,
                decoder=_rabbit_delivery,
                persistent=False,
            )
        ]

    async def intact(self, wanted: _Subscription) -> bool:
        return True  # the client restores queues and consumers after a reconnection by itself
