"""From committed jobs to the broker: the relay half of the outbox that the job table is."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import orjson

from services.chassis import get_logger
from services.chassis.broker import Broker, BrokerUnavailable, Stream

from .store import Store

JOBS = Stream(
    "INGESTION",
    "ingestion.jobs",
    ("ingestion-worker",),
    work_queue=True,
    max_bytes=64 * 1024 * 1024,
)
WORKERS = JOBS.groups[0]


class Relay:
    """Publishes queued jobs; those that nobody took for `again_after` seconds once more.

    Publishing twice is harmless: the worker looks the job up before it does anything. `store` is
    called in `thread`.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker,
        thread: ThreadPoolExecutor,
        *,
        again_after: float = 120.0,
        retention: float = 30 * 86_400,
    ) -> None:
        self._store, self._broker, self._thread = store, broker, thread
        self._again_after, self._retention = again_after, retention
        self._news = asyncio.Event()

    def wake(self) -> None:
        """A job was committed."""
        self._news.set()

    async def run(self) -> None:
        pause, pruned_at = 1.0, 0.0
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            try:
                while await self.publish_some():
                    pass
                pause = 10.0
                if loop.time() - pruned_at > 3600:
                    pruned_at = loop.time()
                    await loop.run_in_executor(self._thread, self._store.prune, self._retention)
            except BrokerUnavailable as error:
                get_logger().warning("jobs_wait", reason=str(error))
                pause = 1.0
                await asyncio.sleep(pause)
            except Exception as error:  # noqa: BLE001 - the next round tries again
                get_logger().error("relay_failed", exc_info=error)
                await asyncio.sleep(5)
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def publish_some(self) -> bool:
        """Publish what waits; True if there was anything."""
        loop = asyncio.get_running_loop()
        jobs = await loop.run_in_executor(
            self._thread, lambda: self._store.unpublished(again_after=self._again_after)
        )
        if not jobs:
            return False
        results = await asyncio.gather(
            *(
                self._broker.publish(
                    JOBS,
                    JOBS.subjects,
                    orjson.dumps({"job_id": job.id}),
                    message_id=job.id,
                    headers=job.headers,
                )
                for job in jobs
            ),
            return_exceptions=True,
        )
        sent = [job.id for job, result in zip(jobs, results, strict=True) if result is None]
        if sent:
            await loop.run_in_executor(self._thread, self._store.set_published, sent)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return True
