"""The split changes the architecture, never the result: twenty fixed questions, both ways.

Of every fourth question both sides have the model write an answer. llama.cpp adds the same numbers
in another order when it reads a prompt whole, in part, or from its cache, and a tie between two
tokens may then fall otherwise. So the prompt is read once before, and both find it in the cache, in
the same state. Of the others the script asks `generation` as well, which has an answer already
for exactly the same request, and only for that.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest
import qdrant_edge

from services.dense_retrieval.domain import Space
from services.ingestion.splitting import index_text
from workshop import models
from workshop.fixed import fixed_questions

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

QUESTIONS = fixed_questions()
WRITTEN_TWICE = {row["id"] for row in QUESTIONS[::4]}


@pytest.fixture(scope="module")
def kept_vectors(first_data, tmp_path_factory):
    """{model: {text: vector}} of the handbook, as dense_retrieval keeps them."""
    shard = tmp_path_factory.mktemp("dense") / "shard"
    shutil.copytree(first_data / "dense_retrieval" / "passages" / "shard", shard)
    opened = qdrant_edge.EdgeShard.load(str(shard))
    points, _ = opened.scroll(
        qdrant_edge.ScrollRequest(limit=10_000, with_vector=True, with_payload=True)
    )
    opened.close()
    found = defaultdict(dict)
    for point in points:
        text = index_text(SimpleNamespace(**point.payload))
        for name, vector in point.vector.items():
            found[Space.parse(name).model][text] = vector
    return found


@pytest.fixture(scope="module")
def monolith(indexed, system_home, kept_vectors):
    """The script, indexed, where lesson 01 finds it.

    To encode every passage again takes two minutes, so it has the passages' vectors of the
    services; the first test below compares them with its own.
    """
    from services.monolith.rag import LocalEmbeddings, Rag

    class Kept(LocalEmbeddings):
        def embed_documents(self, texts):
            kept = kept_vectors[self.encoder.name]
            new = [text for text in texts if text not in kept]  # LangChain tries another one
            found = kept | dict(zip(new, super().embed_documents(new), strict=True))
            return [found[text] for text in texts]

    class RagOfKept(Rag):
        def embeddings(self, model):
            return Kept(model)

    own = system_home / "data" / "monolith" / "reranking"
    own.mkdir(parents=True)
    for kept in (system_home / "data" / "reranking").glob("token-vectors-*.sqlite"):
        with (
            closing(sqlite3.connect(kept)) as store,
            closing(sqlite3.connect(own / kept.name)) as to,
        ):
            store.backup(to)
    rag = RagOfKept(system_home, models.models_folder(), f"{indexed.url('llm_server')}/v1")
    yield rag
    rag.qdrant.close()


@pytest.fixture(scope="module")
def orchestrator(patient):
    with httpx2.Client(base_url=patient.url("orchestrator"), timeout=120) as client:
        yield client


def read_prompt(monolith, question):
    state = monolith.retrieval.invoke({"question": question, "history": []})
    body = {"messages": monolith.prompt(state), "max_tokens": 1, "temperature": 0}
    httpx2.post(f"{monolith.llm_url}/chat/completions", json=body, timeout=120).raise_for_status()


def remembered(system):
    """How many answers generation has given that it had given before."""
    text = httpx2.get(f"{system.url('generation')}/metrics", timeout=10).text
    found = re.search(r'^generation_prompt_cache_total\{result="hit"\} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("model", ["multilingual-e5-small-enpt", "all-MiniLM-L6-v2"])
def test_the_script_makes_the_same_vectors_as_the_services(kept_vectors, model):
    """Of one passage in ten, of all lengths and, where the model knows both, languages."""
    from services.monolith.rag import LocalEmbeddings

    own = LocalEmbeddings(models.models_folder() / model)
    texts = sorted(kept_vectors[model], key=len)[::10]
    assert len(texts) >= 40
    theirs = [kept_vectors[model][text] for text in texts]
    assert np.abs(np.subtract(own.embed_documents(texts), theirs)).max() <= 1e-6


def test_there_are_twenty_fixed_questions():
    assert len(QUESTIONS) == 20


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda row: row["id"])
def test_same_passages_same_order_same_text(indexed, monolith, orchestrator, question):
    server = "llm_server" if question["id"] in WRITTEN_TWICE else "generation"
    monolith.connect(f"{indexed.url(server)}/v1")
    if server == "llm_server":
        read_prompt(monolith, question["question"])
    services = orchestrator.post("/v1/answer", json={"question": question["question"]}).json()
    before = remembered(indexed)
    script = monolith.answer(question["question"])
    if server == "generation":
        assert remembered(indexed) == before + 1
    assert services["degraded"] == []
    assert [source["passages"] for source in services["sources"]] == [
        source["passages"] for source in script["sources"]
    ]
    assert [source["text"] for source in services["sources"]] == [
        source["text"] for source in script["sources"]
    ]
    assert services["answer"] == script["answer"]
    assert [citation["id"] for citation in services["citations"]] == [
        citation["id"] for citation in script["citations"]
    ]
