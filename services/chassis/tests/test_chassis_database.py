from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.exc import OperationalError

from services.chassis.database import connect, create_tables, once_there


def table():
    metadata = MetaData()
    return metadata, Table("numbers", metadata, Column("id", Integer, primary_key=True))


def test_replicas_that_start_together_make_the_tables_once(database_url):
    metadata, numbers = table()
    engines = [connect(database_url) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda engine: engine.connect().close(), engines))  # all at the line
        list(threads.map(lambda engine: create_tables(engine, metadata), engines))
    with engines[0].begin() as db:
        db.execute(insert(numbers).values(id=1))
    for engine in engines:
        with engine.connect() as db:
            assert db.scalars(select(numbers.c.id)).all() == [1]
        engine.dispose()


def test_a_reader_waits_for_no_writer(database_url):
    metadata, numbers = table()
    engine = connect(database_url, timeout=0.1)
    create_tables(engine, metadata)
    reading = engine.execution_options(read_only=True)
    with engine.begin() as writer, reading.connect() as reader:
        writer.execute(insert(numbers).values(id=1))
        assert reader.scalars(select(numbers.c.id)).all() == []
    engine.dispose()


def test_two_writers_of_sqlite_wait_for_the_lock_as_long_as_told(tmp_path):
    engine = connect(f"sqlite:///{tmp_path / 'a.db'}", timeout=0.1)
    with (
        engine.begin(),
        pytest.raises(OperationalError, match="locked"),
        engine.begin(),
    ):
        pass
    engine.dispose()


async def test_a_service_waits_for_a_database_that_starts_after_it(monkeypatch):
    monkeypatch.setattr("services.chassis.database.PAUSE", 0.01)
    tries, said = 0, []

    def make():
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OperationalError("SELECT 1", None, Exception("connection refused\nmore"))
        return "store"

    assert await once_there(make, said.append) == "store"
    assert said == ["the database does not answer: connection refused"] * 2
