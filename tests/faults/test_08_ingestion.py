"""The ingestion worker is killed fifty times while documents come in."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.chassis.testing import nats_server
from services.ingestion.splitting import split_document
from tests.faults.alone import kill, processes_alone
from tests.faults.conftest import Row
from workshop import system as processes

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = 50


async def test_killed_at_random(indexed: processes.System, tmp_path: Path, row: Row) -> None:
    """Real stores, a broker and the models that run already. Every third document comes twice, the
    second time with other sections: none of the first may stay."""
    chance = random.Random(7)
    texts: dict[str, str] = {}
    names = ("dense_retrieval", "sparse_retrieval", "ingestion", "ingestion_worker")
    with nats_server(tmp_path / "nats") as broker:
        settings = {
            "INGESTION_BROKER_URL": broker,
            "INGESTION_EMBEDDING_URL": indexed.url("embedding"),
            "DENSE_EMBEDDING_URL": indexed.url("embedding"),
            "INGESTION_RERANKING_URL": indexed.url("reranking"),
            "INGESTION_ACK_WAIT": "1.0",
            "INGESTION_MAX_BACKOFF": "0.3",
            "INGESTION_MAX_DELIVERIES": str(2 * ROUNDS),
        }
        with processes_alone(tmp_path, names, settings) as here:
            async with aiohttp.ClientSession() as session:
                for number in range(ROUNDS):
                    name = f"d{number - 1 if number % 3 == 2 else number}"
                    texts[name] = _page(name, number)
                    await _accept(session, here, name, texts[name])
                    await asyncio.sleep(chance.uniform(0.0, 0.4))
                    await kill(here, "ingestion_worker")
                await _all_done(session, here, set(texts))
                found = {
                    index: await _ids(session, here.url(index), set(texts))
                    for index in ("dense_retrieval", "sparse_retrieval")
                }
                sizes = {
                    index: (await _get(session, here.url(index) + "/v1/stats"))["passages"]
                    for index in found
                }
    expected = sorted(
        passage.id
        for name, text in texts.items()
        for passage in split_document(text, name, language="pt")
    )
    row(
        f"ingestion worker killed, {ROUNDS} times",
        documents=f"{len(texts)} in {ROUNDS} versions",
        passages=len(expected),
        in_dense=sizes["dense_retrieval"],
        in_sparse=sizes["sparse_retrieval"],
    )
    for index, ids in found.items():
        assert ids == expected, index
        assert sizes[index] == len(expected), index


def _page(name: str, version: int) -> str:
    parts = "\n\n".join(f"## Parte {version} {n}\n\nTexto {n} de {name}." for n in range(2))
    return f"# {name}\n\nAbertura de {name}, {version}.\n\n{parts}\n"


async def _accept(
    session: aiohttp.ClientSession, here: processes.System, name: str, text: str
) -> None:
    body = {"document_id": name, "language": "pt", "content": text}
    async with session.post(here.url("ingestion") + "/v1/documents", json=body) as response:
        assert response.status == 202, await response.text()


async def _all_done(
    session: aiohttp.ClientSession, here: processes.System, names: set[str]
) -> None:
    for _ in range(600):
        listed = await _get(session, here.url("ingestion") + "/v1/documents?limit=1000")
        statuses = {d["id"]: d["status"] for d in listed["documents"]}
        if set(statuses) == names and set(statuses.values()) == {"done"}:
            return
        assert "failed" not in statuses.values(), listed
        await asyncio.sleep(0.1)
    raise AssertionError(f"not all indexed after a minute: {statuses}")


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
