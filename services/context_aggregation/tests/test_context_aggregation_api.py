"""The service with a small tokenizer of its own."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from services.chassis.openapi import openapi_document
from services.chassis.testing import running
from services.context_aggregation.api import create_app
from services.context_aggregation.settings import Settings

PASSAGE = {
    "id": "en/breaker#opens",
    "document": "en/breaker",
    "title": "Breakers",
    "heading": "When it opens",
    "position": 1,
    "language": "en",
    "tags": ["resilience"],
    "text": "A breaker opens after five failures. Cats sleep a lot.",
    "score": 0.9,
}


@pytest.fixture
def settings(tmp_path):
    made = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return Settings(tokenizer_path=tmp_path, data_dir=tmp_path)


@pytest.fixture
async def client(settings):
    async with running(create_app(settings)) as client:
        yield client


def body(**changes):
    return {
        "query": "when does the breaker open?",
        "language": "en",
        "passages": [PASSAGE],
    } | changes


async def test_a_context_comes_with_its_sources(client):
    answer = (await client.post("/v1/context", json=body())).json()
    assert answer["context"] == (
        "[1] Breakers — When it opens\nA breaker opens after five failures. Cats sleep a lot."
    )
    assert answer["sources"] == [
        {
            "number": 1,
            "id": "en/breaker#opens",
            "document": "en/breaker",
            "title": "Breakers",
            "heading": "When it opens",
            "language": "en",
            "text": "A breaker opens after five failures. Cats sleep a lot.",
            "passages": ["en/breaker#opens"],
        }
    ]
    assert answer["tokens"] == 20
    assert answer["dropped"] == []


async def test_the_budget_and_the_number_of_passages_are_the_caller_s(client):
    other = PASSAGE | {"id": "en/b", "document": "en/b", "text": "The breaker opens the gate."}
    few = (
        await client.post("/v1/context", json=body(passages=[PASSAGE, other], max_passages=1))
    ).json()
    assert [item["id"] for item in few["dropped"]] == ["en/b"]
    tight = (await client.post("/v1/context", json=body(max_tokens=3))).json()
    assert (tight["context"], tight["sources"], tight["tokens"]) == ("", [], 0)
    assert tight["dropped"][0]["reason"] == "no room in the token budget"


async def test_no_passages_give_an_empty_context(client):
    answer = (await client.post("/v1/context", json=body(passages=[]))).json()
    assert answer == {"context": "", "sources": [], "tokens": 0, "dropped": []}


async def test_without_a_tokenizer_it_is_never_ready(tmp_path):
    app = create_app(Settings(tokenizer_path=tmp_path / "gone", data_dir=tmp_path))
    with pytest.raises(RuntimeError, match="CONTEXT_TOKENIZER_PATH"):
        async with running(app):
            pass


async def test_a_passed_deadline_is_a_504(client):
    response = await client.post("/v1/context", json=body(), headers={"x-deadline-ms": "0"})
    assert response.status_code == 504
    assert response.json()["type"].endswith("deadline-passed")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"passages": "text"}, "passages"),
        ({"passages": [PASSAGE] * 201}, "passages"),
        ({"passages": [PASSAGE | {"position": -1}]}, "passages.0.position"),
        ({"passages": [PASSAGE | {"colour": "red"}]}, "passages.0.colour"),
        ({"passages": [{"id": "a"}]}, "passages.0.text"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_passages": 0}, "max_passages"),
        ({"language": "e"}, "language"),
        ({"limit": 3}, "limit"),
    ],
)
async def test_bad_input_names_the_field(client, changes, field):
    response = await client.post("/v1/context", json=body(**changes))
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert field in [error["field"] for error in response.json()["errors"]]


def test_the_committed_openapi_document_is_the_code_s():
    committed = Path(__file__).parent.parent / "openapi.json"
    assert committed.read_bytes() == openapi_document("context_aggregation")


async def test_the_steps_that_the_app_was_given_are_used(settings):
    def every_second(texts, similarity):
        assert similarity == settings.duplicate_similarity
        return {place: place - 1 for place in range(1, len(texts), 2)}

    def only_one(pieces, budget, *, write, count):
        assert count(write(pieces[:1])) <= budget == 100
        return pieces[:1]

    other = PASSAGE | {"id": "en/b", "document": "en/b", "text": "The breaker opens the gate."}
    async with running(create_app(settings, duplicates=every_second, fit=only_one)) as client:
        given = body(passages=[PASSAGE, other], max_tokens=100)
        answer = (await client.post("/v1/context", json=given)).json()
    assert [source["text"] for source in answer["sources"]] == [
        "A breaker opens after five failures."
    ]
    assert answer["dropped"] == [
        {"id": "en/b", "reason": "duplicate of en/breaker#opens"},
    ]
