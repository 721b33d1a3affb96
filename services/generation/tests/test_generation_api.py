"""The service against a small HTTP server that plays an OpenAI-compatible LLM."""

import asyncio
import json
import time

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.chassis.testing import running
from services.generation.api import create_app
from services.generation.reading import read_answer
from services.generation.routing import Step
from services.generation.settings import Settings

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
QUESTION = {"messages": [{"role": "user", "content": "Hello?"}]}


class FakeLlm:
    """Answers in three words. `plan` says what goes wrong at each call, in order."""

    def __init__(self):
        self.asked, self.plan, self.cancelled = [], [], asyncio.Event()
        self.pause = 0.0
        self.pauses = ""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        self.server = TestServer(app, handler_cancellation=True)

    async def models(self, _):
        return web.json_response({"data": [{"id": "fake"}]})

    async def complete(self, request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((await request.json(), headers))
        trouble = self.plan.pop(0) if self.plan else None
        if isinstance(trouble, int):
            error = {"error": {"message": "no", "type": "t", "code": "c"}}
            pause = {"retry-after": self.pauses} if self.pauses else None
            return web.json_response(error, status=trouble, headers=pause)
        if trouble == "too long":
            error = {"error": {"message": "long", "type": "exceed_context_size_error"}}
            return web.json_response(error, status=400)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            if trouble == "think":
                await asyncio.sleep(30)
            for index, word in enumerate(("Yes", " indeed", " [1].")):
                await response.write(chunk({"delta": {"content": word}, "finish_reason": None}))
                if trouble == "die" and index == 1:
                    request.transport.abort()
                    return response
                if trouble == "end" and index == 1:
                    return response
                if trouble == "error" and index == 1:
                    await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
                    return response
                await asyncio.sleep(30 if trouble == "hang" else self.pause)
            await response.write(chunk({"delta": {}, "finish_reason": "stop"}))
            await response.write(data({"choices": [], "usage": USAGE, "model": "fake"}))
            await response.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.set()
            raise
        return response


def data(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(choice):
    return data({"id": "x", "model": "fake", "choices": [choice]})


@pytest.fixture
async def llm():
    fake = FakeLlm()
    async with fake.server:
        yield fake


def settings_for(llm, **more):
    return Settings(llm_url=str(llm.server.make_url("/v1")), **{"warm_prompts": False, **more})


@pytest.fixture
async def client(llm):
    async with running(create_app(settings_for(llm))) as client:
        yield client


async def ask(client, **body):
    return await client.post("/v1/chat/completions", json=QUESTION | body)


async def streamed(client, **body):
    """Events of a streamed answer: decoded JSON, and "[DONE]"."""
    response = await ask(client, stream=True, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not happen within five seconds")


def text_of(events):
    chunks = [event for event in events if isinstance(event, dict) and event.get("choices")]
    choices = [chunk["choices"][0] for chunk in chunks]
    return "".join(choice["delta"].get("content", "") for choice in choices)


async def test_a_whole_answer_with_its_usage(client, llm):
    answer = (await ask(client)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Yes indeed [1]."}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == USAGE
    sent = llm.asked[0][0]
    assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0.0, 42, 256)
    assert sent["cache_prompt"] is True


async def test_a_stream_ends_with_the_reason_the_usage_if_wanted_and_done(client):
    events = await streamed(client, stream_options={"include_usage": True})
    assert text_of(events) == "Yes indeed [1]."
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"] == USAGE
    assert events[-1] == "[DONE]"
    without = await streamed(client, seed=7)
    assert all("usage" not in event for event in without[:-1])


async def test_a_prompt_is_rendered_by_name(client, llm):
    prompt = {
        "template": "answer",
        "language": "pt",
        "variables": {"question": "Quando abre?", "context": "[1] Abre após cinco falhas."},
    }
    response = await client.post("/v1/chat/completions", json={"prompt": prompt})
    assert response.status_code == 200
    messages = llm.asked[0][0]["messages"]
    assert messages[0]["role"] == "system"
    assert "Abre após cinco falhas." in messages[-1]["content"]


async def test_the_same_request_is_answered_from_the_cache_and_streams_too(client, llm):
    first = (await ask(client)).json()
    events = await streamed(client, stream_options={"include_usage": True})
    assert len(llm.asked) == 1
    assert text_of(events) == first["choices"][0]["message"]["content"]
    assert len(events) > 5
    assert events[-2]["usage"] == USAGE
    metrics = (await client.get("/metrics")).text
    assert 'generation_prompt_cache_total{result="hit"} 1.0' in metrics
    assert 'generation_tokens_total{kind="completion",route="default"} 3.0' in metrics


async def test_warmer_than_zero_is_never_cached(client, llm):
    await ask(client, temperature=0.5)
    await ask(client, temperature=0.5)
    assert len(llm.asked) == 2


@pytest.mark.parametrize("trouble", ["die", "end", "error"])
async def test_a_model_that_dies_in_mid_answer_gives_an_error_event_and_no_done(
    client, llm, trouble
):
    llm.plan = [trouble]
    events = await streamed(client)
    assert text_of(events) == "Yes indeed"
    assert events[-1]["error"]["type"] == "server_error"
    assert events[-1]["error"]["message"]
    assert "[DONE]" not in events
    assert len(llm.asked) == 1  # after the first token nothing is tried again
    llm.plan = []
    assert text_of(await streamed(client)) == "Yes indeed [1]."  # the half answer is not cached


@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_first_token_it_tries_again_once(client, llm, stream):
    llm.plan = [500]
    if stream:
        assert text_of(await streamed(client)) == "Yes indeed [1]."
    else:
        assert (await ask(client)).status_code == 200
    assert len(llm.asked) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("plan", "status", "kind", "calls"),
    [
        ([500, 500], 502, "llm-failed", 2),
        ([503, 503], 503, "llm-unavailable", 2),
        ([429, 429], 503, "llm-unavailable", 2),
        ([401], 502, "provider-misconfigured", 1),
        ([400], 400, "provider-rejected", 1),
        (["too long"], 400, "prompt-too-long", 1),
    ],
)
async def test_failures_are_problems_that_openai_clients_read(
    client, llm, stream, plan, status, kind, calls
):
    llm.plan = list(plan)
    response = await ask(client, stream=stream)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"].endswith(kind)
    assert problem["error"]["message"] == problem["detail"]
    assert len(llm.asked) == calls


async def test_an_llm_that_is_gone_is_a_503_and_soon_without_a_call(client, llm):
    await llm.server.close()
    for seed in range(4):
        assert (await ask(client, seed=seed)).status_code == 503
    started = time.perf_counter()
    response = await ask(client, seed=9)  # the breaker is open now
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert time.perf_counter() - started < 0.1


async def test_places_are_few_and_one_more_is_refused_at_once(llm):
    llm.plan = ["think", "think"]
    async with running(create_app(settings_for(llm, concurrency=2))) as client:
        waiting = [asyncio.create_task(ask(client, seed=n)) for n in (1, 2)]
        await until(lambda: len(llm.asked) == 2)
        response = await ask(client, seed=3)
        assert response.status_code == 503
        assert response.json()["type"].endswith("overloaded")
        assert response.headers["retry-after"]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.wait_for(llm.cancelled.wait(), 2)
        assert (await ask(client, seed=3)).status_code == 200  # the places are free again


async def test_no_more_time_than_the_deadline_gives(client, llm):
    llm.plan = ["think"]
    response = await client.post(
        "/v1/chat/completions", json=QUESTION, headers={"x-deadline-ms": "150"}
    )
    assert response.status_code == 504


@pytest.mark.parametrize(("stream", "trouble"), [(True, "hang"), (True, "think"), (False, "think")])
async def test_a_client_that_leaves_stops_the_model_within_100_ms(llm, stream, trouble):
    """Over a real socket, which an in-process client does not have."""
    import uvicorn

    llm.plan = [trouble]
    app = create_app(settings_for(llm))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started and app.state.readiness.ok)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            call = asyncio.create_task(session.post(url, json=QUESTION | {"stream": stream}))
            await until(lambda: llm.asked)
            if trouble == "hang":
                response = await call
                await response.content.readany()
                left = time.perf_counter()
                response.close()
            else:
                left = time.perf_counter()
                call.cancel()
            await asyncio.wait_for(llm.cancelled.wait(), 2)
            assert time.perf_counter() - left < 0.1
    finally:
        server.should_exit = True
        await task


async def test_a_route_leads_a_model_name_to_its_provider(llm):
    routes = {
        "big": {
            "provider": "openai",
            "url": str(llm.server.make_url("/v1")),
            "model": "gpt-big",
            "api_key": "secret-key",
        }
    }
    async with running(create_app(settings_for(llm, routes=routes))) as client:
        assert (await ask(client, model="big")).status_code == 200
        body, headers = llm.asked[-1]
        assert body["model"] == "gpt-big"
        assert headers["authorization"] == "Bearer secret-key"
        assert "cache_prompt" not in body
        await ask(client, model="default")
        assert "authorization" not in llm.asked[-1][1]
        names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert names == ["default", "big"]
        response = await ask(client, model="huge")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


@pytest.fixture
async def spare():
    fake = FakeLlm()
    async with fake.server:
        yield fake


def with_spare(llm, spare, **more):
    """Settings in which `spare` stands in for the default model."""
    route = {"provider": "openai", "url": str(spare.server.make_url("/v1")), "model": "s"}
    return settings_for(
        llm, routes={"spare": route}, fallbacks={"default": ["spare"]}, retries=0, **more
    )


async def test_another_model_stands_in_and_its_answer_is_kept_under_its_own_name(llm, spare):
    async with running(create_app(with_spare(llm, spare))) as client:
        llm.plan = [503]
        assert (await ask(client)).status_code == 200
        assert (len(llm.asked), len(spare.asked)) == (1, 1)
        assert (await ask(client)).status_code == 200  # the default is back, and is asked
        assert (len(llm.asked), len(spare.asked)) == (2, 1)
        assert (await ask(client, model="spare")).status_code == 200
        assert len(spare.asked) == 1  # known from before
        metrics = (await client.get("/metrics")).text
    assert 'generation_provider_failures_total{route="default",when="before"} 1.0' in metrics
    assert 'generation_tokens_total{kind="completion",route="spare"} 3.0' in metrics


@pytest.mark.parametrize(
    ("plan", "status", "spares"), [([400], 400, 0), ([401], 200, 1), ([503], 200, 1)]
)
async def test_a_wrong_request_is_wrong_at_every_model(llm, spare, plan, status, spares):
    async with running(create_app(with_spare(llm, spare))) as client:
        llm.plan = plan
        assert (await ask(client)).status_code == status
    assert len(spare.asked) == spares


async def test_no_other_model_finishes_a_sentence_that_was_begun(llm, spare):
    async with running(create_app(with_spare(llm, spare))) as client:
        llm.plan = ["die"]
        events = await streamed(client)
    assert "error" in events[-1]
    assert spare.asked == []


async def test_a_full_model_hands_over_at_once(llm, spare):
    llm.plan = ["think"]
    async with running(create_app(with_spare(llm, spare, concurrency=1))) as client:
        waiting = asyncio.create_task(ask(client, seed=1))
        await until(lambda: llm.asked)
        assert (await ask(client, seed=2)).status_code == 200
        assert len(spare.asked) == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_the_pause_that_a_provider_asks_for_is_kept_or_handed_on(llm):
    llm.pauses = "7"
    async with running(create_app(settings_for(llm))) as client:
        llm.plan = [429]
        started = time.perf_counter()
        response = await client.post(
            "/v1/chat/completions", json=QUESTION, headers={"x-deadline-ms": "5000"}
        )
        assert time.perf_counter() - started < 1  # seven seconds do not fit into five
        assert response.status_code == 503
        assert response.headers["retry-after"] == "7"
    assert len(llm.asked) == 1


async def test_the_core_can_be_replaced(llm):
    seen = []

    def no_key(asked):
        seen.append(asked)

    def never(failure):
        seen.append(failure)
        return Step("give up")

    async def shout(events):
        async for piece in read_answer(events):
            piece.text = piece.text.upper()
            yield piece

    app = create_app(settings_for(llm), make_key=no_key, next_step=never, read=shout)
    async with running(app) as client:
        assert text_of(await streamed(client, user="me")) == "YES INDEED [1]."
        await ask(client)
        assert len(llm.asked) == 2
        assert seen[0]["user"] == "me"
        assert seen[0]["model"] == "default"
        assert seen[0]["messages"] == QUESTION["messages"]
        llm.plan = [503]
        assert (await ask(client)).status_code == 503
        assert len(llm.asked) == 3
        assert seen[-1].status == 503
        assert seen[-1].left > 100


@pytest.mark.parametrize("action", ["again", "elsewhere"])
async def test_a_step_that_is_wrong_cannot_pass_the_deadline_or_repeat_a_begun_answer(llm, action):
    app = create_app(settings_for(llm), next_step=lambda failure: Step(action))
    async with running(app) as client:
        llm.plan = ["die"]
        assert "error" in (await streamed(client))[-1]
        assert len(llm.asked) == 1
        llm.plan = [503] * 10_000
        response = await client.post(
            "/v1/chat/completions", json=QUESTION | {"seed": 3}, headers={"x-deadline-ms": "300"}
        )
        assert response.status_code in (503, 504)


async def test_any_langchain_chat_model_answers_by_its_name(llm):
    settings = settings_for(
        llm,
        provider="langchain",
        model="openai:gpt-small",
        api_key="secret-key",
        options={"base_url": str(llm.server.make_url("/v1")), "stream_usage": True},
    )
    async with running(create_app(settings)) as client:
        events = await streamed(client, stream_options={"include_usage": True})
        assert text_of(events) == "Yes indeed [1]."
        assert events[-2]["usage"] == USAGE
        body, headers = llm.asked[0]
        assert body["model"] == "gpt-small"
        assert headers["authorization"] == "Bearer secret-key"
        llm.plan = [500, 500]
        response = await ask(client, seed=5)
        assert response.status_code == 502
        assert len(llm.asked) == 3


async def test_it_is_ready_once_the_llm_is_and_says_what_it_waits_for(llm):
    settings = settings_for(llm)
    await llm.server.close()
    with pytest.raises(RuntimeError, match="waiting for the LLM server"):
        async with running(create_app(settings), timeout=0.5):
            pass


async def test_both_languages_are_warmed_at_start(llm):
    async with running(create_app(settings_for(llm, warm_prompts=True))) as client:
        await until(lambda: len(llm.asked) == 2)
        firsts = {body["messages"][0]["content"][:20] for body, _ in llm.asked}
        assert firsts == {"Answer the question ", "Responda à pergunta "}
        assert all(body["max_tokens"] == 1 for body, _ in llm.asked)
        assert (await ask(client)).status_code == 200


async def test_the_version_of_a_prompt_is_the_request_s_else_the_setting_s_else_the_newest(llm):
    async def system_text(**more):
        variables = {"question": "Why?", "context": "[1] Because."}
        prompt = {"template": "answer", "variables": variables, **more}
        response = await client.post("/v1/chat/completions", json={"prompt": prompt})
        assert response.status_code == 200
        return llm.asked[-1][0]["messages"][0]["content"]

    async with running(create_app(settings_for(llm))) as client:
        newest, first = await system_text(), await system_text(version="v1")
        assert newest != first
    async with running(create_app(settings_for(llm, prompt_versions={"answer": "v1"}))) as client:
        assert await system_text() == first
        assert await system_text(version="v2") == newest
    with pytest.raises(RuntimeError, match="GENERATION_PROMPT_VERSIONS"):
        async with running(create_app(settings_for(llm, prompt_versions={"answer": "v99"}))):
            pass


async def test_the_prompts_are_listed(client):
    prompts = (await client.get("/v1/prompts")).json()["data"]
    found = {(prompt["template"], prompt["version"], prompt["language"]) for prompt in prompts}
    assert {("answer", "v1", "en"), ("answer", "v1", "pt")} <= found
    assert all(sorted(prompt["variables"]) == ["context", "question"] for prompt in prompts)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        (QUESTION | {"temperature": 9}, "temperature"),
        (QUESTION | {"max_tokens": 0}, "max_tokens"),
        (QUESTION | {"n": 2}, "n"),
        (QUESTION | {"tools": []}, "tools"),
        (QUESTION | {"prompt": {"template": "answer"}}, "body"),
        ({"prompt": {"template": "none"}}, "prompt.template"),
        ({"prompt": {"template": "answer", "language": "fr"}}, "prompt.language"),
        ({"prompt": {"template": "answer", "variables": {"x": "y"}}}, "prompt.variables"),
    ],
)
async def test_bad_input_names_the_field(client, body, field):
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 422
    problem = response.json()
    assert field in [error["field"] for error in problem["errors"]]
    assert problem["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"provider": "openai"}, "needs a url and a model"),
        ({"provider": "langchain"}, "needs a model"),
        ({"routes": {"x": {"provider": "openai", "url": "http://x"}}}, "needs a url and a model"),
        ({"fallbacks": {"default": ["spare"]}}, "no model spare; known: default"),
        ({"fallbacks": {"default": ["default"]}}, "cannot stand in for itself"),
    ],
)
def test_a_provider_without_what_it_needs_is_refused_at_start(wrong, said):
    with pytest.raises(ValueError, match=said):
        Settings(**wrong)
