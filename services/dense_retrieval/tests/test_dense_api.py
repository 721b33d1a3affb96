"""The service over HTTP, with a small HTTP server that plays the embedding service."""

import asyncio
from types import SimpleNamespace

import aiohttp.web as web
import numpy as np
import pytest
from aiohttp.test_utils import TestServer

from services.chassis.testing import running
from services.dense_retrieval import domain as store_module
from services.dense_retrieval.api import create_app
from services.dense_retrieval.domain import open_store
from services.dense_retrieval.settings import Settings
from services.dense_retrieval.vectors import encode

MODELS = {"bilingual": "e5", "english": "minilm"}


class Embedding:
    """Gives every query the same vector; `status` and `answer` make it fail."""

    def __init__(self):
        self.status, self.asked, self.hangs = 200, [], False
        self.vector = [1.0, 0.0, 0.0]
        self.answer = None
        app = web.Application()
        app.router.add_post("/v1/embeddings", self.embed)
        self.server = TestServer(app, handler_cancellation=True)

    async def embed(self, request):
        self.asked.append(await request.json())
        if self.hangs:
            await asyncio.sleep(30)
        if self.status != 200:
            problem = {"type": f"urn:rag-workshop:problem:{self.answer}", "detail": "no."}
            return web.json_response(problem, status=self.status)
        data = [{"index": 0, "embedding": encode(np.array(self.vector, dtype=np.float32))}]
        return web.json_response(self.answer or {"data": data})


@pytest.fixture
async def embedding():
    embedding = Embedding()
    async with embedding.server:
        yield embedding


@pytest.fixture
def settings(tmp_path, embedding):
    return Settings(
        data_dir=tmp_path, embedding_url=str(embedding.server.make_url("")), min_free_bytes=1000
    )


@pytest.fixture
async def client(settings):
    async with running(create_app(settings)) as client:
        yield client


def passage(name, **changes):
    whole = {
        "id": name,
        "document": "en/d",
        "title": "Title",
        "heading": "",
        "position": 0,
        "language": "en",
        "tags": [],
        "text": "Some text.",
    }
    return whole | changes


def stored(name, bilingual, **changes):
    return passage(name, **changes) | {"vectors": {"bilingual": bilingual}}


async def put(client, *passages, models=MODELS):
    return await client.put("/v1/passages", json={"models": models, "passages": list(passages)})


async def search(client, **body):
    response = await client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_store_search_count_delete(client):
    base64 = encode(np.array([1, 1, 0], dtype=np.float32))
    response = await put(client, stored("a", [0, 0, 1]), stored("b", base64, document="en/e"))
    assert response.json() == {"stored": 2}
    for vector in ([1, 1, 0], base64):
        answer = await search(client, vector=vector, top_k=1)
        assert (answer["model"], answer["using"]) == ("e5", "bilingual")
        [hit] = answer["hits"]
        assert hit["passage"] == passage("b", document="en/e")
        assert hit["score"] == pytest.approx(1)
    assert (await client.get("/v1/stats")).json() == {
        "passages": 2,
        "documents": 2,
        "models": {"bilingual": {"model": "e5", "dimensions": 3}},
        "store": "edge",
    }
    assert (await client.delete("/v1/passages?document=en/e")).json() == {"deleted": 1}
    assert (await client.delete("/v1/passages?id=a&id=b")).json() == {"deleted": 1}
    assert (await search(client, vector=[1, 0, 0]))["hits"] == []


async def test_a_query_is_embedded_with_the_model_of_the_stored_vectors(client, embedding):
    both = {"bilingual": [0, 1, 0], "english": [1, 0, 0]}
    await put(client, stored("a", [1, 0, 0]), passage("b") | {"vectors": both})
    assert (await search(client, query="why?"))["hits"][0]["id"] == "a"
    answer = await search(client, query="why?", using="english")
    assert [hit["id"] for hit in answer["hits"]] == ["b"]
    assert embedding.asked == [
        {"input": "why?", "model": model, "encoding_format": "base64", "input_type": "query"}
        for model in ("e5", "minilm")
    ]


async def test_an_empty_collection_does_not_ask_for_a_vector(client, embedding):
    assert await search(client, query="q") == {"hits": [], "model": None, "using": "bilingual"}
    await put(client, stored("a", [1, 0, 0]))
    assert (await search(client, query="q", using="english"))["model"] is None
    assert embedding.asked == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_failing_embedding_is_named(client, embedding, status):
    await put(client, stored("a", [1, 0, 0]))
    embedding.status = status
    response = await client.post("/v1/search", json={"query": "q"})
    assert response.status_code == 503
    assert response.json()["type"].endswith(":embedding-unavailable")
    assert response.json()["service"] == "embedding"
    assert (await search(client, vector=[1, 0, 0]))["hits"]  # vectors are still searched


async def test_a_hanging_embedding_is_named_before_the_deadline(client, embedding):
    await put(client, stored("a", [1, 0, 0]))
    embedding.hangs = True
    response = await client.post(
        "/v1/search", json={"query": "q"}, headers={"x-deadline-ms": "500"}
    )
    assert response.status_code == 503
    assert response.json()["service"] == "embedding"


async def test_an_absent_embedding_is_named(settings):
    settings = settings.model_copy(update={"embedding_url": "http://127.0.0.1:1"})
    async with running(create_app(settings)) as client:
        await put(client, stored("a", [1, 0, 0]))
        response = await client.post("/v1/search", json={"query": "q"})
        assert response.status_code == 503
        assert response.json()["type"].endswith(":embedding-unavailable")


@pytest.mark.parametrize(
    "answer", [{"data": []}, {"data": [{"embedding": "!"}]}, {"data": [{"embedding": [0, 0, 0]}]}]
)
async def test_an_unusable_answer_of_the_embedding_is_its_failure(client, embedding, answer):
    await put(client, stored("a", [1, 0, 0]))
    embedding.answer = answer
    response = await client.post("/v1/search", json={"query": "q"})
    assert response.status_code == 503
    assert response.json()["type"].endswith(":embedding-unavailable")


async def test_a_refused_query_is_the_caller_s_fault(client, embedding):
    await put(client, stored("a", [1, 0, 0]))
    embedding.status, embedding.answer = 422, "invalid-field"
    response = await client.post("/v1/search", json={"query": "q"})
    assert response.status_code == 422
    assert response.json()["type"].endswith(":query-refused")


async def mismatch(response):
    assert response.status_code == 409
    problem = response.json()
    assert problem["type"].endswith(":model-mismatch")
    assert "DELETE /v1/passages?all=true" in problem["detail"]
    assert "workshop ingest" in problem["detail"]
    return problem["detail"]


async def test_another_model_is_a_conflict_that_tells_the_way_out(client, embedding):
    await put(client, stored("a", [1, 0, 0]))
    detail = await mismatch(await put(client, stored("b", [1, 0, 0]), models={"bilingual": "Q/3"}))
    assert "made by e5, these by Q/3" in detail
    await mismatch(await client.post("/v1/search", json={"vector": [1, 0, 0], "model": "Q/3"}))
    embedding.vector = [1.0, 0.0]  # the same name, but another model
    await mismatch(await client.post("/v1/search", json={"query": "q"}))
    embedding.status, embedding.answer = 404, "unknown-model"
    await mismatch(await client.post("/v1/search", json={"query": "q"}))
    assert (await client.get("/v1/stats")).json()["passages"] == 1
    # and the way out works
    assert (await client.delete("/v1/passages?all=true")).json() == {"deleted": 1}
    assert (await put(client, stored("b", [1, 0]), models={"bilingual": "Q/3"})).status_code == 200


async def test_writes_at_once_are_all_kept_and_searches_go_on(client):
    await put(client, stored("kept", [1, 0, 0]))

    async def look():
        for _ in range(20):
            assert (await search(client, vector=[1, 0, 0], top_k=1))["hits"][0]["id"] == "kept"
            await asyncio.sleep(0)

    await asyncio.gather(look(), *(put(client, stored(f"p{n}", [0, 1, n])) for n in range(10)))
    assert (await client.get("/v1/stats")).json()["passages"] == 11


async def test_metrics_tell_searches_and_passages(client):
    await put(client, stored("a", [1, 0, 0]))
    await search(client, vector=[1, 0, 0])
    metrics = (await client.get("/metrics")).text
    assert "dense_passages 1.0" in metrics
    assert "dense_search_seconds_count 1.0" in metrics


async def test_a_full_disk_is_a_503_and_nothing_is_stored(client, monkeypatch):
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    response = await put(client, stored("a", [1, 0, 0]))
    assert response.status_code == 503
    assert response.json()["type"].endswith(":disk-full")
    assert (await client.get("/v1/stats")).json()["passages"] == 0


async def test_a_taken_folder_is_named_by_readiness(settings):
    store = open_store("edge", settings.home)
    with pytest.raises(RuntimeError, match="open in another process"):
        async with running(create_app(settings), timeout=1.5):
            pass
    store.close()


async def test_an_absent_server_is_named_by_readiness(settings):
    import services.dense_retrieval.client_store  # noqa: F401 - not on the clock below

    settings = settings.model_copy(update={"store": "client", "qdrant_url": "http://127.0.0.1:1"})
    with pytest.raises(RuntimeError, match="Qdrant server does not answer"):
        async with running(create_app(settings), timeout=1.5):
            pass


async def test_the_app_hands_its_steps_to_the_store(settings):
    app = create_app(settings, best=lambda fetch, top_k: list(fetch(top_k))[::-1])
    async with running(app) as client:
        await put(client, stored("a", [1, 0, 0]), stored("b", [0, 1, 0]))
        hits = (await search(client, vector=[0, 1, 0]))["hits"]
        assert [hit["id"] for hit in hits] == ["a", "b"]


async def test_the_other_store_answers_alike(settings):
    settings = settings.model_copy(update={"store": "client"})
    async with running(create_app(settings)) as client:
        await put(client, stored("a", [1, 0, 0]), stored("b", [0, 1, 0]))
        hits = (await search(client, vector=[0, 1, 0]))["hits"]
        assert [hit["id"] for hit in hits] == ["b", "a"]
        assert hits[0]["passage"] == passage("b")


def without(field):
    return {name: value for name, value in stored("a", [1, 2]).items() if name != field}


BAD_PASSAGES = [
    (without("id"), "passages.0.id"),
    (without("text"), "passages.0.text"),
    (without("vectors"), "passages.0.vectors"),
    (stored("a", []), "passages.0.vectors.bilingual"),
    (stored("a", [0, 0]), "passages.0.vectors.bilingual"),
    (stored("a", [1, "x"]), "passages.0.vectors.bilingual"),
    (stored("a", "AAAA"), "passages.0.vectors.bilingual"),
    (stored("a", None), "passages.0.vectors.bilingual"),
    (stored("a", [1, 2]) | {"vectors": {}}, "passages.0.vectors"),
    (stored("a", [1, 2], text="x" * 50_001), "passages.0.text"),
    (stored("a", [1, 2], position="first"), "passages.0.position"),
    (stored("a", [1, 2], colour="red"), "passages.0.colour"),
    (stored("a", [1, 2, 3]), "passages.1.vectors.bilingual"),
]


async def test_a_bad_passage_names_the_field_and_stores_nothing(client):
    for item, field in BAD_PASSAGES:
        response = await put(client, item, stored("good", [1, 2]))
        assert response.status_code == 422, (item, response.text)
        assert field in [error["field"] for error in response.json()["errors"]], item
    assert (await client.get("/v1/stats")).json()["passages"] == 0


async def test_models_must_be_named_well(client):
    for models in ({}, {"french": "m"}, {"bilingual": ""}, {"bilingual": "a@b"}):
        response = await put(client, stored("a", [1, 2]), models=models)
        assert response.status_code == 422, models
        assert any(error["field"].startswith("models") for error in response.json()["errors"])


BAD_SEARCHES = [
    ({}, "body"),
    ({"query": "q", "vector": [1, 2, 3]}, "body"),
    ({"query": ""}, "query"),
    ({"query": 3}, "query"),
    ({"query": "x" * 4001}, "query"),
    ({"vector": [1, 2]}, "vector"),
    ({"vector": [0, 0, 0]}, "vector"),
    ({"vector": "?"}, "vector"),
    ({"vector": {"a": 1}}, "vector"),
    ({"vector": [1, 2, 3], "using": "french"}, "using"),
    ({"vector": [1, 2, 3], "top_k": 0}, "top_k"),
    ({"vector": [1, 2, 3], "top_k": 501}, "top_k"),
    ({"vector": [1, 2, 3], "filter": {"tag": "t"}}, "filter.tag"),
    ({"vector": [1, 2, 3], "limit": 3}, "limit"),
]


async def test_a_bad_search_names_the_field(client):
    await put(client, stored("a", [1, 0, 0]))
    for body, field in BAD_SEARCHES:
        response = await client.post("/v1/search", json=body)
        assert response.status_code == 422, (body, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert field in [error["field"] for error in response.json()["errors"]], body


async def test_not_a_number_in_json_is_refused(client):
    await put(client, stored("a", [1, 0, 0]))
    response = await client.post(
        "/v1/search",
        content=b'{"vector": [NaN, 1, 2]}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "vector"


async def test_deleting_nothing_in_particular_is_refused(client):
    response = await client.delete("/v1/passages")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "document"
