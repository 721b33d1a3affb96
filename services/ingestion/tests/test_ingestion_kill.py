"""Real worker processes are killed with SIGKILL in the middle of their work, again and again."""

import asyncio
import os
import random
import subprocess
import sys

import pytest

from services.chassis.testing import nats_server, running
from services.ingestion.api import create_app
from services.ingestion.settings import Settings
from services.ingestion.splitting import split_document

DOCUMENTS = 16


def page(name, version):
    sections = "\n\n".join(f"## {version} part {n}\n\nText {n} of {name}." for n in range(6))
    return f"# {name}\n\nOpening of {name}, {version}.\n\n{sections}\n"


def start_worker(settings):
    environment = os.environ | {
        "INGESTION_DATA_DIR": str(settings.data_dir),
        "INGESTION_BROKER_URL": settings.broker_url,
        "INGESTION_EMBEDDING_URL": settings.embedding_url,
        "INGESTION_DENSE_URL": settings.dense_url,
        "INGESTION_SPARSE_URL": settings.sparse_url,
        "INGESTION_RERANKING_URL": settings.reranking_url,
        "INGESTION_ACK_WAIT": str(settings.ack_wait),
        "INGESTION_MAX_BACKOFF": "0.3",
        "INGESTION_MAX_DELIVERIES": "50",
        "INGESTION_CONCURRENCY": "5",
        "INGESTION_LOG_LEVEL": "ERROR",
    }
    return subprocess.Popen([sys.executable, "-m", "services.ingestion.worker"], env=environment)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_kills_at_any_point_lose_and_double_nothing(tmp_path, backends):
    random.seed(7)
    backends.embedding.seconds = 0.2
    with nats_server(tmp_path / "nats") as url:
        settings = Settings(data_dir=tmp_path, broker_url=url, ack_wait=1.0, **backends.urls())
        async with running(create_app(settings)) as client:
            worker = start_worker(settings)
            try:
                kills = await _two_versions_under_fire(client, backends, settings, worker)
            finally:
                for process in kills_left(worker):
                    process.kill()
                    process.wait()
    assert kills >= 2
    expected = {
        passage.id
        for n in range(DOCUMENTS)
        for passage in split_document(page(f"d{n}", "new"), f"d{n}", language="en")
    }
    assert set(backends.dense.passages) == expected
    assert set(backends.sparse.passages) == expected
    assert all(
        set(p["vectors"]) == {"bilingual", "english"} for p in backends.dense.passages.values()
    )


_processes = []


def kills_left(worker):
    return [p for p in [worker, *_processes] if p.poll() is None]


async def _two_versions_under_fire(client, backends, settings, worker):
    """Index one version of each document, then another; kill the worker at random all along."""
    kills = 0
    for version in ("old", "new"):
        for n in range(DOCUMENTS):
            body = {"document_id": f"d{n}", "language": "en", "content": page(f"d{n}", version)}
            assert (await client.post("/v1/documents", json=body)).status_code == 202
        calls = len(backends.embedding.calls)
        for _ in range(1500):
            await asyncio.sleep(0.1)
            if len(backends.embedding.calls) > calls and kills < (1 if version == "old" else 4):
                # It is in the middle of something.
                await asyncio.sleep(random.uniform(0.0, 0.2))
                worker.kill()
                worker.wait()
                kills += 1
                worker = start_worker(settings)
                _processes.append(worker)
                calls = len(backends.embedding.calls)
                continue
            listed = (await client.get("/v1/documents?limit=1000")).json()["documents"]
            statuses = {document["status"] for document in listed}
            if statuses == {"done"}:
                break
            assert "failed" not in statuses, [d["error"] for d in listed]
        else:
            raise AssertionError(f"not done in time: {statuses}")
    return kills
