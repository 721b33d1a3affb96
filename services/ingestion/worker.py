"""`python -m services.ingestion.worker`: takes jobs from the broker and indexes their documents.

A message is acknowledged only when both indexes have the document and the job row says so.
Everything before that can be done twice with the same effect: passage ids follow from the
document, writes replace, and what may have to be removed was written down beforehand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import ValidationError

from services.chassis import (
    CallFailed,
    DeadlineExceeded,
    Rejected,
    Unavailable,
    configure_logging,
    create_service,
    get_logger,
    serve,
    use_context,
)
from services.chassis.broker import EVENTS, Broker, Delivery
from services.chassis.database import once_there
from services.chassis.events import Outbox
from services.chassis.settings import explain_settings_error

from .domain import BadDocument, Passage, index_text
from .indexing import Indexes
from .parsing import parse
from .read_file import IN_OWN_PROCESS, read_file
from .relay import JOBS, WORKERS, Relay
from .settings import Settings
from .splitting import split
from .store import Busy, Store, Upload, Work

T = TypeVar("T")

_LATER = (408, 425, 429)
"""What a service answers that may take the same request another time."""
_AHEAD_BATCH = 64
"""Texts that reranking is asked to encode in one call."""
_AHEAD_AGAIN = 5.0
"""Seconds until reranking is asked again to encode ahead."""


class Worker:
    """One process that works jobs off. Make it inside a running event loop."""

    def __init__(
        self, settings: Settings, store: Store, registry: CollectorRegistry | None = None
    ) -> None:
        registry = registry or CollectorRegistry()
        self.settings = settings
        self.name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.store = store
        self._db = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.broker = Broker(settings.broker_url, client="ingestion-worker", streams=(JOBS, EVENTS))
        self.outbox = Outbox(
            settings.home / "worker-events.db",
            settings.broker_url,
            "ingestion",
            broker=self.broker,
            registry=registry,
        )
        self.indexes = Indexes(settings)
        self._in_hand = 0
        self._working = Gauge("ingestion_jobs_in_hand", "Jobs at work.", registry=registry)
        self._ended = Counter(
            "ingestion_jobs", "Jobs by how they ended.", ("result",), registry=registry
        )
        self._indexed = Counter("ingestion_passages", "Passages indexed.", registry=registry)
        self._some_ahead, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.broker.subscribe(
            JOBS,
            WORKERS,
            self.handle,
            workers=self.settings.concurrency,
            ack_wait=self.settings.ack_wait,
        )
        self.broker.start()
        self.outbox.start()
        # The worker relays too: jobs queued by an API that has gone must not wait for it.
        relay = Relay(
            self.store,
            self.broker,
            self._db,
            again_after=max(4 * self.settings.ack_wait, 10.0),
            retention=self.settings.job_retention_days * 86_400,
        )
        self._tasks = [asyncio.create_task(relay.run()), asyncio.create_task(self._encode_ahead())]

    async def aclose(self) -> None:
        await self.broker.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.outbox.aclose()
        await self.indexes.aclose()
        await asyncio.to_thread(self._db.shutdown)
        self.store.close()

    async def handle(self, delivery: Delivery) -> None:
        try:
            job_id = str(orjson.loads(delivery.body)["job_id"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            get_logger().error("job_message_not_understood")
            await delivery.drop()
            return
        with use_context(delivery.context(24 * 3600.0)):
            try:
                await self._handle(delivery, job_id)
            except Exception as error:  # noqa: BLE001 - the job stays with the broker
                get_logger().error("job_interrupted", job=job_id, exc_info=error)
                await delivery.retry(5.0)

    async def _handle(self, delivery: Delivery, job_id: str) -> None:
        wait = self.settings.ack_wait
        try:
            work = await self._with_db(
                lambda: self.store.claim(job_id, self.name, wait, self.settings.max_deliveries)
            )
        except Busy:
            await delivery.retry(min(wait / 2, 2.0))
            return
        if work is None:
            await delivery.ack()
            return
        self._has_in_hand(self._in_hand + 1)
        keeper = asyncio.create_task(self._keep(delivery, work))
        pause: float | None
        try:
            pause = await self._work_off(work)
        finally:
            self._has_in_hand(self._in_hand - 1)
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if pause is None:
            await delivery.ack()
        else:
            await delivery.retry(pause)

    def _has_in_hand(self, jobs: int) -> None:
        self._in_hand = jobs
        self._working.set(jobs)
        if jobs:
            self._idle.clear()
        else:
            self._idle.set()

    async def _keep(self, delivery: Delivery, work: Work) -> None:
        """Tell the broker and the other workers that this job is in hand."""
        while True:
            await asyncio.sleep(self.settings.ack_wait / 3)
            with contextlib.suppress(Exception):
                await delivery.extend()
                await self._with_db(
                    lambda: self.store.renew(work.document_id, self.name, self.settings.ack_wait)
                )

    async def _work_off(self, work: Work) -> float | None:
        """None when the job has ended, else the seconds to wait before the next try."""
        log = get_logger().bind(job=work.job_id, document=work.document_id)
        try:
            if work.kind == "delete":
                await self._delete(work)
            else:
                await self._index(work)
        except BadDocument as error:
            await self._give_up(work, str(error))
            return None
        except CallFailed as error:
            if isinstance(error, Rejected) and error.status not in _LATER:
                await self._give_up(work, f"{error.service} refused it: {error.reason}")
                return None
            blameless = isinstance(error, (Unavailable, DeadlineExceeded, Rejected))
            reason = f"Waiting for {error.service}: {error.reason}"
            await self._with_db(lambda: self.store.waiting(work, reason, blameless=blameless))
            log.warning("job_waits", reason=reason)
            return min(self.settings.max_backoff, 0.5 * 2.0 ** min(work.waits, 10))
        self._ended.labels("done").inc()
        return None

    async def _give_up(self, work: Work, reason: str) -> None:
        """The job has ended, without its document."""
        get_logger().warning("job_failed", job=work.job_id, reason=reason)
        self._tell(work, "failed", error=reason)
        await self._with_db(lambda: self.store.failed(work, reason))
        self._ended.labels("failed").inc()

    async def _index(self, work: Work) -> None:
        if work.upload is None:
            raise BadDocument("Its file is no longer there. Send it again.")
        self._tell(work, "running", progress=0.0)
        passages = await self._passages(work.upload)
        ids = [passage.id for passage in passages]
        await self._with_db(lambda: self.store.will_hold(work, ids))
        vectors = await self.indexes.embed(passages)
        await self._with_db(lambda: self.store.progress(work.job_id, 0.7))
        self._tell(work, "running", progress=0.7, passages=len(ids))
        await self.indexes.put(passages, vectors)
        # Last, so that at no moment neither version can be found.
        await self.indexes.delete(sorted(set(work.may_hold) - set(ids)))
        roles = {role for vector in vectors for role in vector}
        wanted = {r for r in self.settings.models if r != "english" or passages[0].language == "en"}
        data = {
            "document_id": work.document_id,
            "job_id": work.job_id,
            "passages": len(ids),
            "language": passages[0].language,
        }
        await self._sure("document.indexed", work, data)
        await self._with_db(
            lambda: self.store.indexed(
                work,
                ids,
                title=passages[0].title,
                language=passages[0].language,
                tags=passages[0].tags,
                models={role: self.settings.models[role] for role in sorted(roles)},
                partial=roles != wanted,
                ahead=[index_text(passage) for passage in passages],
            )
        )
        self._some_ahead.set()
        self._tell(work, "done", progress=1.0, passages=len(ids))
        self._indexed.inc(len(ids))

    async def _delete(self, work: Work) -> None:
        await self.indexes.delete_document(work.document_id)
        data = {"document_id": work.document_id, "job_id": work.job_id}
        await self._sure("document.deleted", work, data)
        await self._with_db(lambda: self.store.deleted(work))
        self._tell(work, "done", progress=1.0)

    async def _passages(self, upload: Upload) -> list[Passage]:
        def cut() -> list[Passage]:
            return split(
                parsed if parsed is not None else parse(upload.content, upload.media_type),
                upload.document_id,
                title=upload.title,
                language=upload.language,
                tags=upload.tags,
                max_words=self.settings.max_words,
                overlap_words=self.settings.overlap_words,
            )

        parsed = None
        if upload.media_type in IN_OWN_PROCESS:
            parsed = await read_file(
                upload.content,
                upload.media_type,
                timeout=self.settings.parse_timeout,
                memory=self.settings.parse_memory,
            )
        return await asyncio.to_thread(cut)

    # -- events and helpers ----------------------------------------------------------------

    def _tell(self, work: Work, status: str, **data: object) -> None:
        known = {"job_id": work.job_id, "document_id": work.document_id, "status": status}
        self.outbox.append("job.progress", known | data)

    async def _sure(self, type: str, work: Work, data: dict[str, Any]) -> None:
        """An event that is on disk before the job counts as done; its id makes repeats one."""
        kept = self.outbox.append(type, data, event_id=f"{work.job_id}.{type}")
        await asyncio.wrap_future(kept)

    async def _with_db(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._db, work)

    # -- encode ahead ----------------------------------------------------------------------

    async def _encode_ahead(self) -> None:
        """Also what an earlier worker has not come to."""
        while True:
            self._some_ahead.clear()
            try:
                while await self._encode_some():
                    pass
                await self._some_ahead.wait()
            except Exception as error:  # noqa: BLE001 - the next round tries again
                get_logger().warning("not_encoded_ahead", reason=str(error))
                await asyncio.sleep(_AHEAD_AGAIN)

    async def _encode_some(self) -> bool:
        """One batch, while no job is in hand; False if nothing waits for reranking."""
        await self._idle.wait()
        texts = await self._with_db(lambda: self.store.ahead(_AHEAD_BATCH))
        if texts:
            try:
                await self.indexes.encode_ahead(list(texts.values()))
            except Rejected as error:
                if error.status in _LATER:
                    raise
                get_logger().warning("not_encoded_ahead", texts=len(texts), reason=error.reason)
            await self._with_db(lambda: self.store.no_longer_ahead(texts))
        return bool(texts)


# -- the process --------------------------------------------------------------------------


@asynccontextmanager
async def running_worker(
    settings: Settings,
    registry: CollectorRegistry | None = None,
    say: Callable[[str], None] = lambda reason: get_logger().warning("waits", reason=reason),
) -> AsyncIterator[Worker]:
    """`say` hears what the start waits for."""
    store = await once_there(lambda: Store(settings.sqlalchemy_url), say)
    worker = Worker(settings, store, registry)
    worker.start()
    try:
        yield worker
    finally:
        await worker.aclose()


def create_worker_app(settings: Settings) -> FastAPI:
    """The worker with `/healthz`, `/readyz` and `/metrics`, for those who set `worker_port`."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        readiness = app.state.readiness
        async with running_worker(
            settings, app.state.metrics.registry, readiness.set_missing
        ) as worker:
            readiness.add_check(
                lambda: None if worker.broker.connected else "the broker is not reachable"
            )
            yield

    return create_service(
        settings,
        title="ingestion_worker",
        description="Indexes the documents that ingestion accepted.",
        router=APIRouter(),
        resources=resources,
    )


class _WorkerSettings(Settings):
    """The same settings; `port` is the worker's."""

    def model_post_init(self, _: object) -> None:
        if self.worker_port is not None:
            self.port = self.worker_port


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    async with running_worker(settings):
        get_logger().info("ready")
        await stop.wait()


def main() -> None:
    try:
        settings = _WorkerSettings()
    except ValidationError as error:
        sys.exit(
            "The ingestion worker cannot start, these settings are wrong:\n"
            + explain_settings_error(error, "INGESTION_")
        )
    if settings.worker_port is not None:
        serve(create_worker_app, _WorkerSettings)
        return
    configure_logging("ingestion_worker", settings.log_level)
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
