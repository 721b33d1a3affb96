"""The service against two small HTTP servers that play dense and sparse retrieval."""

import asyncio

import aiohttp.web as web
import pytest
from aiohttp.test_utils import TestServer

from services.chassis.testing import running
from services.hybrid_search.api import create_app
from services.hybrid_search.domain import reciprocal_rank_fusion
from services.hybrid_search.settings import Settings


def passage(name):
    return {
        "id": name,
        "document": name,
        "title": name,
        "heading": "",
        "position": 0,
        "language": "en",
        "tags": [],
        "text": f"text of {name}",
    }


class Backend:
    """A retrieval service with fixed hits; `status` makes it fail."""

    def __init__(self, ids):
        self.ids, self.status, self.problem, self.asked = ids, 200, {}, []
        self.seconds = 0.0
        app = web.Application()
        app.router.add_post("/v1/search", self.search)
        self.server = TestServer(app)

    async def search(self, request):
        self.asked.append(await request.json())
        await asyncio.sleep(self.seconds)
        hits = [
            {"id": name, "score": 1 / rank, "passage": passage(name)}
            for rank, name in enumerate(self.ids, 1)
        ]
        body = {"hits": hits} if self.status == 200 else self.problem
        return web.json_response(body, status=self.status)


@pytest.fixture
async def backends():
    dense, sparse = Backend(["a", "b"]), Backend(["c", "b"])
    async with dense.server, sparse.server:
        yield dense, sparse


@pytest.fixture
async def client(backends):
    dense, sparse = backends
    settings = Settings(
        dense_url=str(dense.server.make_url("")), sparse_url=str(sparse.server.make_url(""))
    )
    async with running(create_app(settings)) as client:
        yield client


async def test_lists_are_fused_and_keep_their_provenance(client):
    body = {"query": "q", "weights": {"dense": 1, "sparse": 1}}
    answer = (await client.post("/v1/search", json=body)).json()
    assert [hit["id"] for hit in answer["hits"]] == ["b", "a", "c"]
    assert answer["hits"][0]["provenance"] == {
        "dense": {"rank": 2, "score": 0.5},
        "sparse": {"rank": 2, "score": 0.5},
    }
    assert answer["degraded"] == []
    assert set(answer["timings_ms"]) == {"dense", "sparse"}


async def test_english_asks_both_vectors(client, backends):
    await client.post("/v1/search", json={"query": "q", "language": "en"})
    assert {asked["using"] for asked in backends[0].asked} == {"bilingual", "english"}


@pytest.mark.parametrize(("gone", "left"), [(0, ["c", "b"]), (1, ["a", "b"])])
async def test_either_list_may_fail(client, backends, gone, left):
    backends[gone].status = 503
    response = await client.post("/v1/search", json={"query": "q"})
    assert [hit["id"] for hit in response.json()["hits"]] == left
    assert response.json()["degraded"] == [["dense_retrieval", "sparse_retrieval"][gone]]


async def test_the_service_behind_dense_is_named_when_it_is_the_one_that_is_gone(client, backends):
    backends[0].status, backends[0].problem = 503, {"service": "embedding", "detail": "gone"}
    response = await client.post("/v1/search", json={"query": "q"})
    assert response.json()["degraded"] == ["embedding"]


async def test_both_lists_failing_is_a_503_that_says_so(client, backends):
    for backend in backends:
        backend.status = 500
    response = await client.post("/v1/search", json={"query": "q"})
    assert response.status_code == 503
    assert response.json()["type"].endswith("search-unavailable")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": 3}, "query"),
        ({"query": "q", "top_k": 0}, "top_k"),
        ({"query": "q", "weights": {"dense": -1}}, "weights.dense"),
        ({"query": "q", "limit": 3}, "limit"),
    ],
)
async def test_bad_input_names_the_field(client, body, field):
    response = await client.post("/v1/search", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in response.json()["errors"]]


async def test_a_list_that_hangs_leaves_time_for_what_the_others_found(client, backends):
    backends[0].seconds = 3.0
    asked = client.post("/v1/search", json={"query": "q"}, headers={"x-deadline-ms": "400"})
    answer = (await asyncio.wait_for(asked, 0.35)).json()
    assert answer["degraded"] == ["dense_retrieval"]
    assert [hit["id"] for hit in answer["hits"]] == ["c", "b"]


async def test_the_core_is_an_argument(backends):
    dense, sparse = backends
    settings = Settings(
        dense_url=str(dense.server.make_url("")), sparse_url=str(sparse.server.make_url(""))
    )
    asked = []

    def worst_first(lists, *, weights=None, k=60.0):
        return reciprocal_rank_fusion(lists, weights=weights, k=k)[::-1]

    async def one_by_one(ask, names):
        asked.extend(names)
        return {name: await ask(name) for name in names}

    app = create_app(settings, fuse=worst_first, together=one_by_one)
    async with running(app) as client:
        body = {"query": "q", "weights": {"dense": 1, "sparse": 1}}
        answer = (await client.post("/v1/search", json=body)).json()
    assert [hit["id"] for hit in answer["hits"]] == ["c", "a", "b"]
    assert asked == ["dense", "sparse"]


async def test_a_list_that_refuses_is_the_caller_s_problem(client, backends):
    backends[1].status = 422
    backends[1].problem = {"detail": "filter: unknown field"}
    response = await client.post("/v1/search", json={"query": "q"})
    assert response.status_code == 422
    assert response.json()["type"].endswith("list-refused")
