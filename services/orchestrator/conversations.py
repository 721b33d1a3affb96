"""Conversations, in the orchestrator's own database: SQLite, or PostgreSQL for several replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Float, Index, Select, String, Text, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from services.chassis import current
from services.chassis.breaker import Breaker, BreakerOpen
from services.chassis.database import connect, create_tables

T = TypeVar("T")


class Base(DeclarativeBase):
    pass


class Turn(Base):
    __tablename__ = "turns"
    __table_args__ = (
        Index("turns_by_conversation", "conversation", "at"),
        Index("turns_by_time", "at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation: Mapped[str] = mapped_column(String(64))
    at: Mapped[float] = mapped_column(Float)
    question: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)


class Forgotten(Exception):
    """The database did not answer in time; the conversation is not to be had."""


class Conversations:
    """The turns of each conversation; every replica on the same `url` sees the same.

    An answer never waits long for them: a call takes at most `timeout` seconds, and a database
    that has failed five times in a row is left alone for a second. Then it raises `Forgotten`.
    """

    def __init__(self, url: str, *, ttl: float = 86_400.0, timeout: float = 0.5) -> None:
        self._engine = connect(url, timeout=timeout, synchronous="NORMAL")
        self._ttl, self._timeout = ttl, timeout
        self._breaker = Breaker("conversations")
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="conversations")
        self._tables_made, self._pruned_at = False, 0.0

    async def open(self) -> None:
        """Make the tables, so that no answer waits for it. Without a database they are made later:
        nobody is to go without answers for the want of one."""
        with suppress(Forgotten):
            await self._run(lambda db: db.scalars(_questions("", 1)).all(), 5.0)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._engine.dispose()

    async def add(self, conversation: str, question: str, answer: str) -> None:
        """Append a turn, and once a minute forget the conversations that nobody continued."""
        now = time.time()
        # PostgreSQL has no place for U+0000; the replacement character shows that one was there.
        texts = {
            "question": question.replace("\0", "\ufffd"),
            "answer": answer.replace("\0", "\ufffd"),
        }
        later = aliased(Turn)
        continued = (
            select(later.id)
            .where(later.conversation == Turn.conversation, later.at >= now - self._ttl)
            .exists()
        )

        def work(db: Connection) -> None:
            db.execute(insert(Turn).values(conversation=conversation, at=now, **texts))
            if now - self._pruned_at >= 60:
                db.execute(delete(Turn).where(Turn.at < now - self._ttl, ~continued))
                self._pruned_at = now

        # By now the answer is there: what is left of its time serves for nothing else.
        await self._run(work, max(self._seconds(), 0.05))

    async def questions(self, conversation: str, limit: int) -> list[str]:
        """The last `limit` questions, oldest first."""
        found = _questions(conversation, limit)
        # The answer itself still needs most of the time that is left.
        seconds = min(self._timeout, current().deadline.left / 4)
        return (await self._run(lambda db: list(db.scalars(found)), seconds, read_only=True))[::-1]

    async def turns(self, conversation: str) -> list[dict[str, Any]]:
        """The turns as they were added, `at` in Unix seconds."""
        found = (
            select(Turn.question, Turn.answer, Turn.at)
            .where(Turn.conversation == conversation)
            .order_by(Turn.id)
        )
        seconds = self._seconds()
        rows = await self._run(lambda db: db.execute(found).all(), seconds, read_only=True)
        return [{"question": row[0], "answer": row[1], "at": row[2]} for row in rows]

    async def delete(self, conversation: str) -> int:
        """Turns deleted."""
        gone = delete(Turn).where(Turn.conversation == conversation)
        return await self._run(lambda db: db.execute(gone).rowcount, self._seconds())

    def _seconds(self) -> float:
        return min(self._timeout, current().deadline.left)

    async def _run(
        self, work: Callable[[Connection], T], seconds: float, *, read_only: bool = False
    ) -> T:
        loop = asyncio.get_running_loop()
        try:
            with self._breaker.attempt():
                async with asyncio.timeout(seconds):
                    return await loop.run_in_executor(
                        self._threads, self._transaction, work, read_only
                    )
        except (BreakerOpen, TimeoutError, SQLAlchemyError) as error:
            reason = str(getattr(error, "orig", error)) or f"no answer within {seconds:.1f} s"
            raise Forgotten(reason.splitlines()[0]) from error

    def _transaction(self, work: Callable[[Connection], T], read_only: bool) -> T:
        if not self._tables_made:  # here and not at the start: answers do not wait for a database
            create_tables(self._engine, Base.metadata)
            self._tables_made = True
        with self._engine.execution_options(read_only=read_only).begin() as connection:
            return work(connection)


def _questions(conversation: str, limit: int) -> Select[str]:
    found = select(Turn.question).where(Turn.conversation == conversation)
    return found.order_by(Turn.id.desc()).limit(limit)
