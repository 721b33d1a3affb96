import pytest

from services.chassis.testing import running
from services.post_processing.api import create_app
from services.post_processing.settings import Settings

SOURCE = {
    "number": 1,
    "id": "en/circuit-breaker#when-it-opens",
    "document": "en/circuit-breaker",
    "title": "Circuit breakers",
    "heading": "When it opens",
    "language": "en",
    "text": "A circuit breaker opens after five failures in a row.",
    "passages": ["en/circuit-breaker#when-it-opens"],
}
BODY = {
    "question": "When does a circuit breaker open?",
    "answer": "It opens after five failures in a row.",
    "sources": [SOURCE],
    "language": "en",
    "mode": "generated",
}


@pytest.fixture
async def client():
    async with running(create_app(Settings())) as client:
        yield client


async def test_an_answer_comes_back_checked(client):
    answer = (await client.post("/v1/postprocess", json=BODY)).json()
    assert answer["answer"] == "It opens after five failures in a row [1]."
    assert answer["citations"] == [
        {name: SOURCE[name] for name in ("number", "id", "document", "title", "heading", "text")}
    ]
    assert answer["groundedness"] == 1.0
    assert answer["refused"] is False
    assert {"check": "citation", "action": "added"}.items() <= answer["decisions"][1].items()


async def test_the_checks_are_counted(client):
    await client.post("/v1/postprocess", json=BODY)
    metrics = (await client.get("/metrics")).text
    assert 'post_processing_decisions_total{action="added",check="citation"} 1.0' in metrics
    assert "post_processing_groundedness_count 1.0" in metrics


async def test_the_three_steps_can_be_replaced():
    app = create_app(
        Settings(),
        cite=lambda given, scores, least: [max(scores)],
        share=lambda claim, sentences, head: (1.0, 0),
        is_cpf=lambda digits: digits == "12345678901",
    )
    second = SOURCE | {"number": 2, "text": "Another text."}
    answer = "Netflix sold its patent to 123.456.789-01."
    async with running(app) as client:
        body = BODY | {"answer": answer, "sources": [SOURCE, second]}
        result = (await client.post("/v1/postprocess", json=body)).json()
    assert result["answer"] == "Netflix sold its patent to [CPF] [2]."


async def test_the_settings_reach_the_checks():
    async with running(create_app(Settings(relevance_threshold=1.0))) as client:
        body = BODY | {"question": "When does a broker stop?"}
        assert (await client.post("/v1/postprocess", json=body)).json()["refused"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": ""}, "question"),
        ({"answer": None}, "answer"),
        ({"mode": "magic"}, "mode"),
        ({"sources": [SOURCE, SOURCE]}, "sources"),
        ({"sources": [SOURCE | {"number": 0}]}, "sources.0.number"),
        ({"sources": [SOURCE | {"colour": "red"}]}, "sources.0.colour"),
        ({"tone": "polite"}, "tone"),
    ],
)
async def test_bad_input_names_the_field(client, change, field):
    response = await client.post("/v1/postprocess", json=BODY | change)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]
