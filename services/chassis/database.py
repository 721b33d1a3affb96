"""SQLite in a file or PostgreSQL, by URL (SQLAlchemy).

Only services that own tables import it; the images of the others hold no driver.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

T = TypeVar("T")
PAUSE = 1.0
"""Seconds between two tries of `once_there`."""
_CREATING = 0x7AB1E5
"""Key of the PostgreSQL advisory lock under which tables are made."""


def connect(
    url: str, *, timeout: float = 20.0, synchronous: str = "FULL", max_bytes: int | None = None
) -> Engine:
    """An engine for `url`; nothing is opened before it is used.

    `timeout`, in seconds, bounds the wait for SQLite's lock and for a PostgreSQL that is silent.
    `synchronous` is SQLite's pragma: FULL keeps a commit through a power cut, NORMAL through the
    death of the process. `max_bytes` bounds SQLite's file. A connection with the option
    `read_only` does not take SQLite's write lock.
    """
    if make_url(url).get_backend_name() == "sqlite":
        waits = {"timeout": timeout, "check_same_thread": False}
        engine = create_engine(url, connect_args=waits)
        event.listen(engine, "connect", _on_connect(synchronous, max_bytes))
        event.listen(engine, "begin", _begin)
        return engine
    silence = {"connect_timeout": math.ceil(timeout), "tcp_user_timeout": int(timeout * 1000)}
    # What a restart of the server has cut is replaced before it is used.
    return create_engine(url, connect_args=silence, pool_pre_ping=True)


def create_tables(engine: Engine, metadata: MetaData) -> None:
    """Make the tables that are missing. Replicas that start at the same time take turns."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
        metadata.create_all(connection)


async def once_there(make: Callable[[], T], say: Callable[[str], None]) -> T:
    """What `make` gives, called in a thread, as soon as its database answers. Until then `say` is
    told each second what is missing: after a power cut a service may start before its database."""
    while True:
        try:
            return await asyncio.to_thread(make)
        except OperationalError as error:
            say(f"the database does not answer: {str(error.orig).splitlines()[0]}")
        await asyncio.sleep(PAUSE)


def _on_connect(synchronous: str, max_bytes: int | None) -> Callable[[Any, Any], None]:
    def on_connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's `begin` below is the only one
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        if max_bytes is not None:
            page = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={max_bytes // page}").close()

    return on_connect


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads and then writes could otherwise fail half-way.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
