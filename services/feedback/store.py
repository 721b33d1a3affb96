"""The event store (SQLAlchemy: SQLite in WAL mode with synchronous=FULL, or PostgreSQL).

One thread writes: all rows that wait go into one commit (group commit), and whoever sent a row
hears of it only after that commit. `Full` or `Unavailable` means that nothing was stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Float,
    Index,
    Integer,
    String,
    Text,
    delete,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from services.chassis.database import connect, create_tables

from .domain import Answer, Unavailable, Vote

ANSWER_COMPLETED, FEEDBACK_GIVEN = "answer.completed", "feedback.given"


class Base(DeclarativeBase):
    pass


class FeedbackRow(Base):
    __tablename__ = "feedback"
    __table_args__ = (
        Index("feedback_by_day", "day"),
        Index("feedback_by_request", "request_id"),
    )

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    day: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[float] = mapped_column(Float)
    request_id: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(20))
    value: Mapped[str | None] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text)
    question: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)


class EventRow(Base):
    """Every event as it came."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_by_type", "type", "day"),
        Index("events_by_request", "request_id"),
    )

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    type: Mapped[str] = mapped_column(String(100))
    time: Mapped[str] = mapped_column(String(40))
    day: Mapped[str] = mapped_column(String(10))
    source: Mapped[str] = mapped_column(String(100))
    request_id: Mapped[str | None] = mapped_column(String(128))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class AnswerRow(Base):
    """What reports need of an `answer.completed` event, in columns."""

    __tablename__ = "answers"
    __table_args__ = (Index("answers_by_day", "day"),)

    event_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    day: Mapped[str] = mapped_column(String(10))
    request_id: Mapped[str] = mapped_column(String(128))
    question: Mapped[str] = mapped_column(Text)
    intent: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(40))
    degraded: Mapped[int] = mapped_column(Integer)
    refused: Mapped[bool]
    groundedness: Mapped[float | None] = mapped_column(Float)
    total_ms: Mapped[float | None] = mapped_column(Float)


class StageRow(Base):
    """One stage of one answer."""

    __tablename__ = "stages"
    __table_args__ = (Index("stages_by_day", "day"),)

    event_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    day: Mapped[str] = mapped_column(String(10))
    stage: Mapped[str] = mapped_column(String(60))
    status: Mapped[str] = mapped_column(String(20))
    ms: Mapped[float] = mapped_column(Float)


class KeyReused(Exception):
    """The idempotency key belongs to another feedback."""


@dataclass(frozen=True)
class Given:
    """Feedback to be stored. `id` is the same for repeats of the same act."""

    id: str
    request_id: str
    kind: str
    value: str | None
    comment: str | None
    question: str | None
    answer: str | None

    @classmethod
    def of(cls, body: dict[str, Any], key: str | None) -> Given:
        """From a checked request body; the id follows from the idempotency key, if any."""
        value = body.get("value")
        return cls(
            id=_id_for(key) if key else uuid.uuid4().hex,
            request_id=body["request_id"],
            kind=body["kind"],
            value=None if value is None else str(value),
            comment=body.get("comment"),
            question=body.get("question"),
            answer=body.get("answer"),
        )

    @property
    def fingerprint(self) -> str:
        content = (
            self.request_id,
            self.kind,
            self.value,
            self.comment,
            self.question,
            self.answer,
        )
        return hashlib.sha256(repr(content).encode()).hexdigest()


def _id_for(key: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"urn:rag-workshop:feedback:{key}").hex


@dataclass(frozen=True)
class Happened:
    """An event to be stored; `time` in UTC. `given` is the feedback it carries, if it does."""

    id: str
    type: str
    time: datetime
    source: str
    request_id: str | None
    data: dict[str, Any]
    given: Given | None = None


Item = Given | Happened


class Store:
    """`append` from an event loop; the reads block and belong in a thread."""

    def __init__(
        self, url: str, *, max_waiting: int = 10_000, max_database_bytes: int | None = None
    ) -> None:
        self._engine = connect(url, max_bytes=max_database_bytes)
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Item, asyncio.Future[bool]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        create_tables(self._engine, Base.metadata)

    def close(self) -> None:
        self._writer.shutdown()
        self._engine.dispose()

    @property
    def waiting(self) -> int:
        """Rows that wait for a commit."""
        return len(self._waiting)

    # -- writing ---------------------------------------------------------------------------

    async def append(self, item: Item) -> bool:
        """Durable on return: True when it is new, False when its id was stored before.

        Raises `Unavailable` (nothing stored) or `KeyReused`.
        """
        if len(self._waiting) >= self._max_waiting:
            raise Unavailable("too many rows wait to be written")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._write_all(), name="group-commit")
        return await future

    async def _write_all(self) -> None:
        """Commit after commit until nothing waits; each takes all that came during the last."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(500, len(self._waiting)))]
            items = [item for item, _ in batch]
            results: list[bool | Exception]
            try:
                results = await loop.run_in_executor(self._writer, self._commit, items)
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                results = [Unavailable(type(error).__name__)] * len(items)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue  # its caller has gone
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _commit(self, items: Sequence[Item]) -> list[bool | Exception]:
        """Results in order. One transaction; if it fails, each item gets one of its own."""
        try:
            with self._engine.begin() as connection:
                return _insert(connection, items)
        except SQLAlchemyError as error:
            if len(items) == 1 or _is_full(error):
                reason = "the disk is full" if _is_full(error) else type(error).__name__
                return [Unavailable(reason) for _ in items]
        return [result for item in items for result in self._commit([item])]

    async def forget(self, request_id: str) -> tuple[int, int]:
        """Delete all that is kept of one request; how many events and how much feedback it was.

        Raises `Unavailable`. What the broker delivers again afterwards is stored again.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._writer, self._forget, request_id)
        except SQLAlchemyError as error:
            raise Unavailable(type(error).__name__) from error

    def _forget(self, request_id: str) -> tuple[int, int]:
        with self._engine.begin() as connection:
            ids = list(
                connection.scalars(select(EventRow.id).where(EventRow.request_id == request_id))
            )
            for start in range(0, len(ids), 500):
                some = ids[start : start + 500]
                connection.execute(delete(StageRow).where(StageRow.event_id.in_(some)))
                connection.execute(delete(AnswerRow).where(AnswerRow.event_id.in_(some)))
                connection.execute(delete(EventRow).where(EventRow.id.in_(some)))
            gone = connection.execute(
                delete(FeedbackRow).where(FeedbackRow.request_id == request_id)
            )
            return len(ids), gone.rowcount

    # -- reading ---------------------------------------------------------------------------

    def answers(self, since: str, before: str | None = None) -> Iterator[Answer]:
        """Answers from the day `since` to before the day `before`, in the order of days."""
        columns = [getattr(AnswerRow, name) for name in Answer.__dataclass_fields__]
        query = select(*columns).where(AnswerRow.day >= since).order_by(AnswerRow.day)
        if before is not None:
            query = query.where(AnswerRow.day < before)
        for row in self._rows(query):
            yield Answer(*row)

    def votes(self, since: str) -> Iterator[Vote]:
        """Feedback from the day `since` on, in the order in which it was given."""
        columns = [getattr(FeedbackRow, name) for name in Vote.__dataclass_fields__]
        query = select(*columns).where(FeedbackRow.day >= since).order_by(FeedbackRow.created_at)
        for row in self._rows(query):
            yield Vote(*row)

    def timings(self, since: str) -> Iterator[tuple[str, str, float]]:
        """(stage, status, milliseconds)"""
        query = select(StageRow.stage, StageRow.status, StageRow.ms).where(StageRow.day >= since)
        for row in self._rows(query):
            yield row[0], row[1], row[2]

    def record(self, request_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(events, feedback) of one request, each in the order of time."""
        events = select(EventRow).where(EventRow.request_id == request_id).order_by(EventRow.time)
        given = (
            select(FeedbackRow)
            .where(FeedbackRow.request_id == request_id)
            .order_by(FeedbackRow.created_at)
        )
        with Session(self._engine.execution_options(read_only=True)) as session:
            return (
                [_columns(row) for row in session.scalars(events)],
                [_columns(row) for row in session.scalars(given)],
            )

    def _rows(self, query: Any) -> Iterator[Any]:
        options = {"read_only": True, "yield_per": 1000}
        with self._engine.connect().execution_options(**options) as connection:
            yield from connection.execute(query)


def _insert(connection: Connection, items: Sequence[Item]) -> list[bool | Exception]:
    known_feedback = _known(connection, FeedbackRow.id, FeedbackRow.fingerprint, _given_ids(items))
    events = [item.id for item in items if isinstance(item, Happened)]
    known_events = _known(connection, EventRow.id, EventRow.type, events)
    feedback_rows: list[dict[str, Any]] = []
    event_rows: list[dict[str, Any]] = []
    answer_rows: list[dict[str, Any]] = []
    stage_rows: list[dict[str, Any]] = []
    results: list[bool | Exception] = []
    now = datetime.now(UTC)

    def add_feedback(given: Given, at: datetime) -> bool | Exception:
        if given.id in known_feedback:
            same = known_feedback[given.id] == given.fingerprint
            return False if same else KeyReused("the key was used for another feedback")
        known_feedback[given.id] = given.fingerprint
        feedback_rows.append(
            {
                "id": given.id,
                "fingerprint": given.fingerprint,
                "day": at.date().isoformat(),
                "created_at": at.timestamp(),
                "request_id": given.request_id,
                "kind": given.kind,
                "value": given.value,
                "comment": given.comment,
                "question": given.question,
                "answer": given.answer,
            }
        )
        return True

    for item in items:
        if isinstance(item, Given):
            results.append(add_feedback(item, now))
            continue
        if item.id in known_events:
            results.append(False)
            continue
        known_events[item.id] = item.type
        day = item.time.date().isoformat()
        event_rows.append(
            {
                "id": item.id,
                "type": item.type,
                "time": item.time.isoformat(),
                "day": day,
                "source": item.source,
                "request_id": item.request_id,
                "data": item.data,
            }
        )
        if item.given is not None:
            add_feedback(item.given, item.time)
        if item.type == ANSWER_COMPLETED:
            answer, stages = _answer_rows(item, day)
            answer_rows.append(answer)
            stage_rows += stages
        results.append(True)
    for table, rows in (
        (FeedbackRow, feedback_rows),
        (EventRow, event_rows),
        (AnswerRow, answer_rows),
        (StageRow, stage_rows),
    ):
        if rows:
            connection.execute(insert(table), rows)
    return results


def _given_ids(items: Sequence[Item]) -> list[str]:
    given = [item if isinstance(item, Given) else item.given for item in items]
    return [item.id for item in given if item is not None]


def _known(connection: Connection, key: Any, value: Any, ids: Sequence[str]) -> dict[str, str]:
    if not ids:
        return {}
    return {row[0]: row[1] for row in connection.execute(select(key, value).where(key.in_(ids)))}


def _answer_rows(item: Happened, day: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An event of another version of the orchestrator may lack parts; it is stored all the same."""
    data = item.data
    timings = data.get("timings")
    stages, ends = [], []
    for number, timing in enumerate(timings if isinstance(timings, list) else []):
        if not isinstance(timing, dict) or not isinstance(timing.get("stage"), str):
            continue
        ms = _number(timing.get("ms")) or 0.0
        ends.append((_number(timing.get("start_ms")) or 0.0) + ms)
        stages.append(
            {
                "event_id": item.id,
                "number": number,
                "day": day,
                "stage": timing["stage"][:60],
                "status": str(timing.get("status", "ok"))[:20],
                "ms": ms,
            }
        )
    degraded = data.get("degraded")
    return {
        "event_id": item.id,
        "day": day,
        "request_id": item.request_id or item.id,
        "question": str(data.get("question") or "")[:4000],
        "intent": str(data.get("intent") or "unknown")[:40],
        "kind": str(data.get("kind") or "unknown")[:40],
        "degraded": len(degraded) if isinstance(degraded, list) else 0,
        "refused": bool(data.get("refused")),
        "groundedness": _number(data.get("groundedness")),
        "total_ms": max(ends) if ends else None,
    }, stages


def _columns(row: Base) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _is_full(error: SQLAlchemyError) -> bool:
    text = str(error).lower()
    return "full" in text or "no space" in text or "disk i/o" in text
