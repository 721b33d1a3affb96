"""What the tests of several services share: the databases that a service with tables runs on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy

from services.chassis.testing import postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Makes an empty database on a PostgreSQL of its own; gives its URL."""
    try:
        with postgres_server() as server:
            engine = sqlalchemy.create_engine(
                server + "postgres", isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
            )

            def make() -> str:
                name = f"test_{uuid.uuid4().hex}"
                with engine.connect() as connection:
                    connection.exec_driver_sql(f"CREATE DATABASE {name}")
                return server + name

            yield make
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres")())
