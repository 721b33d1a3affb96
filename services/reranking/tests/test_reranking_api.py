import asyncio
import re
import threading

import pytest

from services.chassis.openapi import SERVICES, openapi_document
from services.chassis.testing import running
from services.reranking import api
from services.reranking.api import create_app
from services.reranking.late_interaction import max_sim
from services.reranking.settings import Settings

DOCUMENTS = ["x y z", "a b c", "c d e"]


@pytest.fixture
def settings(token_model, cross_encoder_folder, tmp_path):
    return Settings(
        model_dir=token_model,
        cross_encoder_dir=cross_encoder_folder,
        data_dir=tmp_path,
        threads=1,
        max_tokens=24,
    )


@pytest.fixture
async def client(settings):
    async with running(create_app(settings)) as client:
        yield client


async def rerank(client, **body):
    return await client.post("/v1/rerank", json={"query": "a b c", "documents": DOCUMENTS} | body)


async def test_documents_come_back_best_first(client):
    response = await rerank(client)
    answer = response.json()
    assert answer["id"] == response.headers["x-request-id"]
    assert answer["model"] == "late-interaction/tiny"
    assert answer["results"][0] == {
        "index": 1,
        "relevance_score": pytest.approx(1.0, abs=0.01),
    }
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["meta"] == {"engine": "late-interaction", "ranked": 3, "complete": True}


async def test_top_n_and_documents(client):
    documents = ["x", {"text": "a b c", "id": "p7"}, "c"]
    answer = (await rerank(client, documents=documents, top_n=2, return_documents=True)).json()
    assert [result["document"] for result in answer["results"]] == [
        {"text": "a b c", "id": "p7"},
        {"text": "c"},
    ]


async def test_passages_are_encoded_ahead_once(client):
    first = await client.put("/v1/passages", json={"texts": ["a b", "c d"]})
    again = await client.put("/v1/passages", json={"texts": ["a b", "e f", "e f"]})
    assert first.json() == {"encoded": 2, "known": 0}
    assert again.json() == {"encoded": 1, "known": 1}
    metrics = (await client.get("/metrics")).text
    assert re.search(r"^reranking_passages_encoded_total 3.0$", metrics, re.M)


async def test_who_waits_for_an_answer_goes_before_passages_that_are_encoded_ahead(
    settings, monkeypatch
):
    monkeypatch.setattr(api, "_LETS_OTHERS_GO", 30.0)
    compared, go_on = threading.Event(), threading.Event()
    go_on.set()  # a start warms up

    def compare(question, passages, weights):
        compared.set()
        go_on.wait(10)
        return max_sim(question, passages, weights)

    async with running(create_app(settings, score=compare)) as client:
        compared.clear()
        go_on.clear()
        asked = asyncio.create_task(rerank(client))
        await asyncio.to_thread(compared.wait, 10)
        ahead = asyncio.create_task(client.put("/v1/passages", json={"texts": ["a b", "e f"]}))
        done, _ = await asyncio.wait({ahead}, timeout=0.3)
        assert not done
        go_on.set()
        assert (await asked).json()["meta"]["complete"]
        assert (await ahead).json()["encoded"] == 2


async def test_passages_are_encoded_ahead_under_a_load_that_never_ends(settings, monkeypatch):
    monkeypatch.setattr(api, "_LETS_OTHERS_GO", 0.1)
    app = create_app(settings)
    async with running(app) as client:
        with app.state.turns.asking():
            ahead = await client.put("/v1/passages", json={"texts": ["a b", "e f"]}, timeout=5)
    assert ahead.json()["encoded"] == 2


async def test_passages_survive_a_restart(settings):
    async with running(create_app(settings)) as client:
        await client.put("/v1/passages", json={"texts": ["a b", "c d"]})
    async with running(create_app(settings)) as client:
        again = await client.put("/v1/passages", json={"texts": ["a b", "c d"]})
    assert again.json() == {"encoded": 0, "known": 2}


async def test_short_time_ranks_what_it_can_and_says_so(client):
    await client.put("/v1/passages", json={"texts": ["c d e"]})
    client._transport.app.state.pace.learn(1, 100.0)  # a hundred seconds a token
    answer = (await rerank(client)).json()
    assert answer["meta"] == {"engine": "late-interaction", "ranked": 1, "complete": False}
    assert [result["index"] for result in answer["results"]] == [2, 0, 1]
    assert [result["relevance_score"] for result in answer["results"][1:]] == [0.0, 0.0]


async def test_a_deadline_within_the_reserve_is_a_504(client):
    response = await client.post(
        "/v1/rerank",
        json={"query": "a", "documents": ["a"]},
        headers={"x-deadline-ms": "10"},
    )
    assert response.status_code == 504
    assert response.json()["type"].endswith("deadline-passed")


async def test_the_cross_encoder_is_one_setting_away(settings):
    settings.engine = "cross-encoder"
    async with running(create_app(settings)) as client:
        answer = (await rerank(client)).json()
        put = await client.put("/v1/passages", json={"texts": ["a b"]})
        (model,) = (await client.get("/v1/models")).json()["data"]
    assert answer["results"][0]["index"] == 1
    assert answer["meta"]["engine"] == model["engine"] == "cross-encoder"
    assert put.json() == {"encoded": 0, "known": 0}


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("late-interaction", r"has no model\.onnx"),
        ("cross-encoder", "no cross-encoder is promoted"),
    ],
)
async def test_without_its_model_it_never_looks_ready(settings, tmp_path, engine, reason):
    settings.engine = engine
    settings.model_dir = settings.cross_encoder_dir = tmp_path / "absent"
    with pytest.raises(RuntimeError, match=reason):
        async with running(create_app(settings)):
            pass


async def test_another_model_is_a_404_that_names_this_one(client):
    response = await rerank(client, model="rerank-v3.5")
    assert response.status_code == 404
    assert "late-interaction/tiny" in response.json()["detail"]
    (model,) = (await client.get("/v1/models")).json()["data"]
    assert (await rerank(client, model=model["id"])).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": 5}, "query"),
        ({"query": "a" * 4001}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", ""]}, "documents"),
        ({"documents": ["a", 3]}, "documents"),
        ({"documents": [{"id": "no text"}]}, "documents"),
        ({"documents": ["a"] * 1001}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"return_documents": "perhaps"}, "return_documents"),
        ({"limit": 3}, "limit"),
    ],
)
async def test_bad_input_names_the_field(client, body, field):
    response = await rerank(client, **body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert any(error["field"].startswith(field) for error in response.json()["errors"])


@pytest.mark.parametrize("body", [{}, {"texts": []}, {"texts": [""]}, {"texts": "a"}])
async def test_bad_passages_name_the_field(client, body):
    response = await client.put("/v1/passages", json=body)
    assert response.status_code == 422
    assert any(error["field"].startswith("texts") for error in response.json()["errors"])


def test_the_committed_openapi_is_the_codes():
    assert (SERVICES / "reranking/openapi.json").read_bytes() == openapi_document("reranking")
