import importlib.util
import sys
from pathlib import Path

import pytest

from services.chassis.testing import nats_server, running
from services.ingestion.api import create_app
from services.ingestion.settings import Settings
from services.ingestion.worker import running_worker

_spec = importlib.util.spec_from_file_location(
    "ingestion_standins", Path(__file__).with_name("standins.py")
)
standins = sys.modules["ingestion_standins"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(standins)


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory):
    with nats_server(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture
async def backends():
    async with standins.Backends() as backends:
        yield backends


@pytest.fixture
def settings(request, tmp_path, broker_url, backends):
    """On SQLite, or on the database that the test names."""
    other = getattr(request, "param", None) == "postgresql"
    return Settings(
        data_dir=tmp_path,
        database_url=request.getfixturevalue("postgres")() if other else None,
        broker_url=broker_url,
        ack_wait=2.0,
        max_backoff=0.3,
        **backends.urls(),
    )


@pytest.fixture
async def client(settings):
    async with running(create_app(settings)) as client:
        yield client


@pytest.fixture
async def worker(settings):
    async with running_worker(settings) as worker:
        yield worker
