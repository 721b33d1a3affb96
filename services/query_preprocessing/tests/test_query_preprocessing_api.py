"""The service against small HTTP servers that play sparse_retrieval and a language model."""

import asyncio

import aiohttp.web as web
import pytest
from aiohttp.test_utils import TestServer

from services.chassis.openapi import openapi_document
from services.chassis.testing import running
from services.query_preprocessing.api import create_app
from services.query_preprocessing.settings import Settings


class Others:
    """Serves /v1/vocabulary with an ETag, and a chat completion."""

    def __init__(self):
        self.terms, self.version, self.asked = {"qdrant": 4, "reranking": 9}, "1", []
        self.rewrite, self.delay, self.status = "bm25 formula", 0.0, 200
        app = web.Application()
        app.router.add_get("/v1/vocabulary", self.vocabulary)
        app.router.add_post("/v1/chat/completions", self.chat)
        self.server = TestServer(app)

    async def vocabulary(self, request):
        self.asked.append(request.headers.get("if-none-match"))
        etag = f'"{self.version}"'
        if self.asked[-1] == etag:
            return web.Response(status=304)
        return web.json_response({"version": self.version, "terms": self.terms})

    async def chat(self, request):
        await asyncio.sleep(self.delay)
        message = {"role": "assistant", "content": self.rewrite}
        return web.json_response({"choices": [{"message": message}]}, status=self.status)


@pytest.fixture
async def others():
    found = Others()
    async with found.server:
        yield found


@pytest.fixture
def settings(others, lexicon_folder):
    (lexicon_folder / "vocabulary.json").unlink(missing_ok=True)
    url = str(others.server.make_url(""))
    return Settings(
        data_dir=lexicon_folder.parent,
        vocabulary_url=url,
        vocabulary_refresh=0.05,
        llm_url=url + "/v1",
        llm_timeout=0.5,
    )


async def until(condition, seconds=5.0):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("did not happen in time")


async def ask(client, query, **body):
    response = await client.post("/v1/preprocess", json={"query": query, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_app_uses_the_parts_that_it_is_given(settings):
    app = create_app(settings, standalone=lambda question, *_: (f"{question} (mine)", "mine"))
    async with running(app) as client:
        found = await ask(client, "And when?", history=["When does a breaker open?"])
        assert found["search_query"] == "And when? (mine)"


async def test_the_vocabulary_is_fetched_kept_and_refreshed(settings, others):
    app = create_app(settings)
    async with running(app) as client:
        await until(lambda: len(app.state.preprocessor.vocabulary) == 2)
        assert (await ask(client, "what is rerankng"))["suggestion"] == "what is reranking"
        await until(lambda: '"1"' in others.asked)  # asked again, with the ETag
        others.terms, others.version = {"rerankng": 3}, "2"
        await until(lambda: len(app.state.preprocessor.vocabulary) == 1)
        assert (await ask(client, "what is rerankng"))["suggestion"] is None
    await others.server.close()
    app = create_app(settings)
    async with running(app):  # sparse_retrieval is gone: the copy on disk serves
        assert "rerankng" in app.state.preprocessor.vocabulary


async def test_it_is_ready_without_a_vocabulary(settings):
    settings.vocabulary_url = "http://127.0.0.1:9"
    async with running(create_app(settings)) as client:
        found = await ask(client, "Oi, o que é um brocker de mensagens?")
        assert (found["language"], found["intent"]) == ("pt", "question")
        assert [step["name"] for step in found["steps"]][-1] == "llm_rewrite"


async def test_a_language_model_rewrites_when_asked(settings, others):
    async with running(create_app(settings)) as client:
        off = await ask(client, "what is the formula of BM25?")
        assert off["search_query"] == "what is the formula of BM25?"
        on = await ask(client, "what is the formula of BM25?", steps={"llm_rewrite": True})
        assert on["search_query"] == "bm25 formula"
        assert on["steps"][-1]["applied"] is True


@pytest.mark.parametrize("fault", ["slow", "error", "empty", "rambling"])
async def test_without_a_usable_rewrite_the_query_stays(settings, others, fault):
    settings.llm_timeout = 0.2
    others.delay = 1.0 if fault == "slow" else 0.0
    others.status = 500 if fault == "error" else 200
    others.rewrite = {"empty": "  ", "rambling": "word " * 200}.get(fault, "bm25 formula")
    async with running(create_app(settings)) as client:
        found = await ask(client, "what is BM25?", steps={"llm_rewrite": True})
        assert found["search_query"] == "what is BM25?"
        assert found["steps"][-1]["applied"] is False
        assert found["steps"][-1]["detail"].startswith("no rewrite")


async def test_a_passed_deadline_is_a_504(settings):
    async with running(create_app(settings)) as client:
        response = await client.post(
            "/v1/preprocess", json={"query": "q"}, headers={"x-deadline-ms": "0"}
        )
        assert response.status_code == 504
        assert response.json()["type"].endswith("deadline-passed")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": " \n\t"}, "query"),
        ({"query": 3}, "query"),
        ({"query": "x" * 4001}, "query"),
        ({"query": "q", "history": "q"}, "history"),
        ({"query": "q", "history": ["q"] * 51}, "history"),
        ({"query": "q", "history": [7]}, "history.0"),
        ({"query": "q", "steps": {"spelling": "perhaps"}}, "steps.spelling"),
        ({"query": "q", "top_k": 3}, "top_k"),
    ],
)
async def test_bad_input_names_the_field(settings, body, field):
    async with running(create_app(settings)) as client:
        response = await client.post("/v1/preprocess", json=body)
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        assert field in [error["field"] for error in response.json()["errors"]]


async def test_an_unknown_step_is_refused(settings):
    async with running(create_app(settings)) as client:
        response = await client.post(
            "/v1/preprocess", json={"query": "q", "steps": {"translate": True}}
        )
        assert response.status_code == 422
        assert "translate" in response.json()["errors"][0]["field"]


def test_the_committed_openapi_document_is_the_code_s():
    from pathlib import Path

    committed = Path(__file__).parent.parent / "openapi.json"
    assert committed.read_bytes() == openapi_document("query_preprocessing")


def test_settings_switch_steps_off(monkeypatch):
    monkeypatch.setenv("PREPROCESSING_SPELLING", "false")
    monkeypatch.setenv("PREPROCESSING_LLM_REWRITE", "true")
    steps = Settings().options().steps
    assert "spelling" not in steps
    assert {"normalize", "llm_rewrite"} <= steps
