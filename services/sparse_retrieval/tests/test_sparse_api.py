"""The service over HTTP."""

import asyncio
from types import SimpleNamespace

import pytest

from services.chassis.testing import running
from services.sparse_retrieval import domain
from services.sparse_retrieval.api import create_app
from services.sparse_retrieval.domain import KeywordIndex
from services.sparse_retrieval.settings import Settings


def passage(name, text="Circuit breakers open.", **changes):
    whole = {
        "id": name,
        "document": "en/d",
        "title": "Title",
        "heading": "Heading",
        "position": 1,
        "language": "en",
        "tags": ["t"],
        "text": text,
    }
    return whole | changes


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path, min_free_bytes=1000)


@pytest.fixture
async def client(settings):
    async with running(create_app(settings)) as client:
        yield client


async def put(client, *passages):
    response = await client.put("/v1/passages", json={"passages": list(passages)})
    assert response.status_code == 200, response.text
    return response.json()


async def test_store_search_count_delete(client):
    assert await put(client, passage("en/d"), passage("en/d#b", "Bulkheads.")) == {"stored": 2}
    body = {"query": "When does a breaker open?", "language": "en", "top_k": 5}
    answer = (await client.post("/v1/search", json=body)).json()
    assert [hit["id"] for hit in answer["hits"]] == ["en/d"]
    assert answer["hits"][0]["passage"] == passage("en/d")
    assert (await client.get("/v1/stats")).json() == {
        "passages": 2,
        "documents": 1,
        "languages": {"en": 2},
        "store": "disk",
    }
    deleted = await client.delete("/v1/passages", params={"id": "en/d#b"})
    assert deleted.json() == {"deleted": 1}
    deleted = await client.delete("/v1/passages?document=en/d&document=en/e")
    assert deleted.json() == {"deleted": 1}
    assert (await client.post("/v1/search", json=body)).json() == {"hits": []}


async def test_many_writes_at_once_are_all_kept(client):
    await asyncio.gather(*(put(client, passage(f"p{number}")) for number in range(20)))
    assert (await client.get("/v1/stats")).json()["passages"] == 20


async def test_the_vocabulary_is_sent_only_when_it_changed(client):
    await put(client, passage("a", "Breakers open."))
    first = await client.get("/v1/vocabulary")
    assert first.json()["terms"]["breakers"] == 1
    etag = first.headers["etag"]
    assert etag == f'"{first.json()["version"]}"'
    for tag in (etag, f'"other", W/{etag}', "*"):
        again = await client.get("/v1/vocabulary", headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
    await put(client, passage("b", "Bulkheads."))
    changed = await client.get("/v1/vocabulary", headers={"if-none-match": etag})
    assert changed.status_code == 200
    assert changed.json()["terms"]["bulkheads"] == 1


async def test_metrics_tell_searches_and_passages(client):
    await put(client, passage("a"))
    await client.post("/v1/search", json={"query": "breakers"})
    metrics = (await client.get("/metrics")).text
    assert "sparse_passages 1.0" in metrics
    assert "sparse_search_seconds_count 1.0" in metrics


async def test_a_full_disk_is_a_503_and_nothing_is_stored(client, monkeypatch):
    monkeypatch.setattr(domain.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    response = await client.put("/v1/passages", json={"passages": [passage("a")]})
    assert response.status_code == 503
    assert response.json()["type"].endswith(":disk-full")
    assert "Free some space" in response.json()["detail"]
    assert (await client.get("/v1/stats")).json()["passages"] == 0


async def test_a_taken_folder_is_named_by_readiness_and_opened_once_it_is_free(settings):
    owner = KeywordIndex(settings.home)
    app = create_app(settings)
    with pytest.raises(RuntimeError, match="open in another process"):
        async with running(app, timeout=0.5):
            pass
    asyncio.get_running_loop().call_later(0.2, owner.close)
    async with running(create_app(settings), timeout=10) as client:
        assert (await client.get("/readyz")).status_code == 200


async def test_passages_are_there_after_a_restart(settings):
    async with running(create_app(settings)) as client:
        await put(client, passage("a"))
    async with running(create_app(settings)) as client:
        assert (await client.get("/v1/stats")).json()["passages"] == 1


def without(field):
    return {name: value for name, value in passage("a").items() if name != field}


BAD_PASSAGES = [
    ("text", "passages.0"),
    (without("id"), "passages.0.id"),
    (without("text"), "passages.0.text"),
    (passage(""), "passages.0.id"),
    (passage("x" * 513), "passages.0.id"),
    (passage("a", ""), "passages.0.text"),
    (passage("a", "x" * 50_001), "passages.0.text"),
    (passage("a", position=-1), "passages.0.position"),
    (passage("a", position="first"), "passages.0.position"),
    (passage("a", tags="t"), "passages.0.tags"),
    (passage("a", tags=["t"] * 51), "passages.0.tags"),
    (passage("a", tags=[1]), "passages.0.tags.0"),
    (passage("a", language=None), "passages.0.language"),
    (passage("a", colour="red"), "passages.0.colour"),
]


async def test_a_bad_passage_names_the_field_and_stores_nothing(client):
    for item, field in BAD_PASSAGES:
        body = {"passages": [item, passage("good")]}
        response = await client.put("/v1/passages", json=body)
        assert response.status_code == 422, (item, response.text)
        assert field in [error["field"] for error in response.json()["errors"]], item
    assert (await client.get("/v1/stats")).json()["passages"] == 0


BAD_SEARCHES = [
    ({}, "query"),
    ({"query": ""}, "query"),
    ({"query": 3}, "query"),
    ({"query": None}, "query"),
    ({"query": "x" * 4001}, "query"),
    ({"query": "q", "top_k": 0}, "top_k"),
    ({"query": "q", "top_k": 501}, "top_k"),
    ({"query": "q", "language": 1}, "language"),
    ({"query": "q", "filter": {"tag": "t"}}, "filter.tag"),
    ({"query": "q", "filter": {"title": ["t"]}}, "filter.title"),
    ({"query": "q", "limit": 3}, "limit"),
]


async def test_a_bad_search_names_the_field(client):
    for body, field in BAD_SEARCHES:
        response = await client.post("/v1/search", json=body)
        assert response.status_code == 422, (body, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert field in [error["field"] for error in response.json()["errors"]], body


BAD_BODIES = [
    (b"{", 400),
    (b'{"query": "\xff"}', 400),
    (b'{"query": "\\ud800"}', 422),
    (b"[]", 422),
    (b"null", 422),
]


async def test_a_body_that_is_no_json_object_is_refused(client):
    headers = {"content-type": "application/json"}
    for content, status in BAD_BODIES:
        response = await client.post("/v1/search", content=content, headers=headers)
        assert response.status_code == status, content
        assert response.headers["content-type"] == "application/problem+json"


async def test_deleting_nothing_in_particular_is_refused(client):
    await put(client, passage("a"))
    response = await client.delete("/v1/passages")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "document"
    assert (await client.get("/v1/stats")).json()["passages"] == 1
