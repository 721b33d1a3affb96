"""Events to the broker through an outbox on disk (transactional outbox, C. Richardson,
Microservices Patterns, 2018, §3.3.7).

`append` puts an event in a queue; one thread writes all that wait into SQLite in one commit
(WAL, synchronous=FULL), and a background task publishes them and deletes what the broker has
acknowledged. A dead broker, a full disk or a kill never reaches the request that caused the
event: after a kill, what was on disk is published at the next start, each with its own id, by
which consumers tell repeats.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge

from .broker import EVENTS, Broker, BrokerUnavailable
from .context import current
from .logs import get_logger

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    headers BLOB NOT NULL,
    body BLOB NOT NULL
)
"""
_Row = tuple[str, str, bytes, bytes]


class Outbox:
    """Durable events of one process. `path` must not be shared with another process.

    `max_bytes` bounds the file: beyond it events are dropped, counted and logged, because a full
    disk would take the whole machine along. `max_pending` bounds what waits in memory to be
    written. Call `start()` in a running event loop to publish; `append` works without.
    """

    def __init__(
        self,
        path: Path,
        broker_url: str,
        source: str,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        max_pending: int = 10_000,
        registry: CollectorRegistry | None = None,
        broker: Broker | None = None,
    ) -> None:
        self.path = path
        self.source = source
        self._url = broker_url
        self._broker = broker
        self._own_broker = broker is None
        self._max_bytes = max_bytes
        self._max_pending = max_pending
        self._waiting: deque[tuple[_Row, Future[bool]]] = deque()
        self._scheduled = False
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._complained_at = float("-inf")
        registry = registry or CollectorRegistry()
        self._backlog = Gauge(
            "outbox_backlog", "Events on disk, not yet acknowledged.", registry=registry
        )
        self._published = Counter(
            "outbox_published", "Events acknowledged by the broker.", registry=registry
        )
        self._dropped = Counter(
            "outbox_dropped", "Events lost because the outbox was full.", registry=registry
        )
        # One thread owns the connection: commits are grouped and never on the event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._db: sqlite3.Connection = self._thread.submit(self._open).result()

    # -- writing ---------------------------------------------------------------------------

    def append(
        self, type: str, data: dict[str, Any], *, event_id: str | None = None
    ) -> Future[bool]:
        """Hand over an event of `type` with JSON-able `data`; returns at once and never raises.

        The future becomes True when the event is on disk, False when it was dropped. Most callers
        ignore it; one that must not answer before uses `asyncio.wrap_future`.
        """
        done: Future[bool] = Future()
        context = current()
        try:
            event = {
                "id": event_id or uuid.uuid4().hex,
                "type": type,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "source": self.source,
                "request_id": context.request_id,
                "data": data,
            }
            headers = context.headers()
            del headers["x-deadline-ms"]
            row = (str(event["id"]), type, orjson.dumps(headers), orjson.dumps(event))
            with self._lock:
                if len(self._waiting) >= self._max_pending:
                    raise OverflowError("too many events wait to be written")
                self._waiting.append((row, done))
                schedule, self._scheduled = not self._scheduled, True
            if schedule:
                self._thread.submit(self._write)
        except Exception as error:  # noqa: BLE001 - an event must never fail its request
            self._drop([done], error)
        return done

    def _write(self) -> None:
        """All that waits, in one commit. Runs in the outbox's thread."""
        with self._lock:
            batch = list(self._waiting)
            self._waiting.clear()
            self._scheduled = False
        try:
            with self._db:
                self._db.executemany(
                    "INSERT INTO outbox (id, type, headers, body) VALUES (?, ?, ?, ?)",
                    [row for row, _ in batch],
                )
        except sqlite3.Error as error:
            self._drop([done for _, done in batch], error)
            return
        self._backlog.inc(len(batch))
        for _, done in batch:
            done.set_result(True)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def _drop(self, futures: Sequence[Future[bool]], error: BaseException) -> None:
        self._dropped.inc(len(futures))
        if time.monotonic() - self._complained_at > 60:
            self._complained_at = time.monotonic()
            get_logger().error("outbox_dropped_events", path=str(self.path), reason=str(error))
        for done in futures:
            done.set_result(False)

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=10)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        page = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={max(8, self._max_bytes // page)}")
        with db:
            db.execute(_SCHEMA)
        self._backlog.set(db.execute("SELECT count(*) FROM outbox").fetchone()[0])
        return db

    # -- publishing ------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Events on disk that the broker has not acknowledged."""
        return int(self._backlog._value.get())

    def start(self) -> None:
        """Publish in the background from now on."""
        self._loop = asyncio.get_running_loop()
        if self._broker is None:
            self._broker = Broker(self._url, client=self.source, streams=(EVENTS,))
            self._broker.start()
        self._news.set()
        self._task = asyncio.create_task(self._relay(), name="outbox")

    async def aclose(self) -> None:
        """Write what waits to disk and stop; what is not published stays for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._broker is not None and self._own_broker:
            await self._broker.stop()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._thread.submit(self._db.close).result()
        self._thread.shutdown()

    async def _relay(self) -> None:
        pause = 0.5
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self._publish_some():
                    pause = 0.5
            except (BrokerUnavailable, sqlite3.Error) as error:
                get_logger().warning("outbox_waits", backlog=self.backlog, reason=str(error))
                self._news.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 15.0)

    async def _publish_some(self, limit: int = 100) -> bool:
        """Publish up to `limit` of the oldest events; True if there were any."""
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._thread, self._oldest, limit)
        if not rows:
            return False
        assert self._broker is not None
        results = await asyncio.gather(
            *(
                self._broker.publish(
                    EVENTS, f"events.{type}", body, message_id=id, headers=orjson.loads(headers)
                )
                for _, id, type, headers, body in rows
            ),
            return_exceptions=True,
        )
        sent = [row[0] for row, result in zip(rows, results, strict=True) if result is None]
        await loop.run_in_executor(self._thread, self._delete, sent)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return True

    def _oldest(self, limit: int) -> list[tuple[int, str, str, bytes, bytes]]:
        return self._db.execute(
            "SELECT number, id, type, headers, body FROM outbox ORDER BY number LIMIT ?", (limit,)
        ).fetchall()

    def _delete(self, numbers: list[int]) -> None:
        with self._db:
            self._db.executemany("DELETE FROM outbox WHERE number = ?", [(n,) for n in numbers])
        self._backlog.dec(len(numbers))
        self._published.inc(len(numbers))
