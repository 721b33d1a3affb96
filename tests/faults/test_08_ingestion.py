"""The ingestion worker is killed fifty times while documents come in."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.chassis.testing import nats_server
from services.ingestion.splitting import split_document
from tests.faults.alone import processes_alone
from tests.faults.conftest import Row
from tests.faults.forms import kill
from workshop import system as processes

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = 50
_OURS = re.compile(r"d\d+")
LONGEST = {"processes": 0.4, "containers": 3.0}
"""Seconds between two kills, at most: a worker's start and the work on a document or two."""


@pytest.fixture
def ingesting(
    request: pytest.FixtureRequest, either: processes.System, tmp_path: Path
) -> Iterator[processes.System]:
    """Real stores, a broker and the models that run already. Processes have stores of their own,
    containers those of the whole."""
    if request.node.callspec.params["either"] == "containers":
        yield either
        return
    names = ("dense_retrieval", "sparse_retrieval", "ingestion", "ingestion_worker")
    with nats_server(tmp_path / "nats") as broker:
        settings = {
            "INGESTION_BROKER_URL": broker,
            "INGESTION_EMBEDDING_URL": either.url("embedding"),
            "DENSE_EMBEDDING_URL": either.url("embedding"),
            "INGESTION_RERANKING_URL": either.url("reranking"),
            "INGESTION_ACK_WAIT": "1.0",
            "INGESTION_MAX_BACKOFF": "0.3",
            "INGESTION_MAX_DELIVERIES": str(2 * ROUNDS),
        }
        with processes_alone(tmp_path, names, settings) as here:
            yield here


async def test_killed_at_random(
    ingesting: processes.System, row: Row, request: pytest.FixtureRequest
) -> None:
    """Every third document comes twice, the second time with other sections: none of the first may
    stay."""
    here, chance = ingesting, random.Random(7)
    longest = LONGEST[request.node.callspec.params["either"]]
    texts: dict[str, str] = {}
    at_work = 0
    indexes = ("dense_retrieval", "sparse_retrieval")
    async with aiohttp.ClientSession() as session:
        before = {index: await _size(session, here, index) for index in indexes}
        for number in range(ROUNDS):
            name = f"d{number - 1 if number % 3 == 2 else number}"
            texts[name] = _page(name, number)
            began = datetime.now(UTC)
            job = await _accept(session, here, name, texts[name])
            if number % 2:  # at work as well, which a start that takes long would hardly meet
                await _until_at_work(session, here, job, began, 2 * longest)
            else:
                await asyncio.sleep(chance.uniform(0.0, longest))
            at_work += await _at_work(session, here, job, began)
            await kill(here, "ingestion_worker")
        await _all_done(session, here, set(texts))
        found = {index: await _ids(session, here.url(index), set(texts)) for index in indexes}
        sizes = {index: await _size(session, here, index) - before[index] for index in indexes}
    expected = sorted(
        passage.id
        for name, text in texts.items()
        for passage in split_document(text, name, language="pt")
    )
    row(
        f"ingestion worker killed, {ROUNDS} times",
        documents=f"{len(texts)} in {ROUNDS} versions",
        killed_at_work=at_work,
        passages=len(expected),
        in_dense=sizes["dense_retrieval"],
        in_sparse=sizes["sparse_retrieval"],
    )
    assert at_work > 0
    for index, ids in found.items():
        assert ids == expected, index
        assert sizes[index] == len(expected), index


def _page(name: str, version: int) -> str:
    parts = "\n\n".join(f"## Parte {version} {n}\n\nTexto {n} de {name}." for n in range(2))
    return f"# {name}\n\nAbertura de {name}, {version}.\n\n{parts}\n"


async def _accept(
    session: aiohttp.ClientSession, here: processes.System, name: str, text: str
) -> str:
    """The id of its job."""
    body = {"document_id": name, "language": "pt", "content": text}
    async with session.post(here.url("ingestion") + "/v1/documents", json=body) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["job_id"])


async def _documents(session: aiohttp.ClientSession, here: processes.System) -> dict[str, str]:
    """Status of each document of this test."""
    listed = await _get(session, here.url("ingestion") + "/v1/documents?limit=1000")
    return {d["id"]: d["status"] for d in listed["documents"] if _OURS.fullmatch(d["id"])}


async def _at_work(
    session: aiohttp.ClientSession, here: processes.System, job: str, since: datetime
) -> bool:
    """Whether a worker that started after `since` has begun with this job, and has not ended."""
    found = await _get(session, here.url("ingestion") + f"/v1/jobs/{job}")
    return found["status"] == "running" and datetime.fromisoformat(found["updated_at"]) > since


async def _until_at_work(
    session: aiohttp.ClientSession,
    here: processes.System,
    job: str,
    since: datetime,
    patience: float,
) -> None:
    for _ in range(int(patience / 0.02)):
        if await _at_work(session, here, job, since):
            return
        await asyncio.sleep(0.02)


async def _all_done(
    session: aiohttp.ClientSession, here: processes.System, names: set[str]
) -> None:
    for _ in range(600):
        statuses = await _documents(session, here)
        if set(statuses) == names and set(statuses.values()) == {"done"}:
            return
        assert "failed" not in statuses.values(), statuses
        await asyncio.sleep(0.1)
    raise AssertionError(f"not all indexed after a minute: {statuses}")


async def _size(session: aiohttp.ClientSession, here: processes.System, index: str) -> int:
    return int((await _get(session, here.url(index) + "/v1/stats"))["passages"])


async def _ids(session: aiohttp.ClientSession, url: str, names: set[str]) -> list[str]:
    """Ids of the passages that a search in each document finds."""
    ids = []
    for name in sorted(names):
        body: dict[str, Any] = {"query": f"Texto de {name}", "top_k": 50}
        body["filter"] = {"document": [name]}
        async with session.post(f"{url}/v1/search", json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
        ids += [hit["id"] for hit in answer["hits"]]
    return sorted(ids)


async def _get(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        return await response.json()
