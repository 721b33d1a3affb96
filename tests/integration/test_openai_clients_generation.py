"""The official OpenAI client and langchain-openai against generation, over a real socket.

The LLM behind it is a small server of the same API, so that failures can be made at will.
"""

import asyncio
import json
import threading

import openai
import pytest
import uvicorn
from aiohttp import web
from langchain_openai import ChatOpenAI

from services.generation.api import create_app
from services.generation.settings import Settings

MESSAGES = [{"role": "user", "content": "When does a breaker open?"}]
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


async def _complete(request):
    """Three words; the user's message "die" breaks the answer off after two."""
    asked = (await request.json())["messages"][-1]["content"]
    if asked == "refuse":
        return web.json_response({"error": {"message": "no"}}, status=400)
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for index, word in enumerate(("After", " five", " failures")):
        await _send(response, {"choices": [{"delta": {"content": word}, "finish_reason": None}]})
        if asked == "die" and index == 1:
            return response
    await _send(response, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
    await _send(response, {"choices": [], "usage": USAGE})
    await response.write(b"data: [DONE]\n\n")
    return response


async def _send(response, value):
    await response.write(b"data: " + json.dumps(value).encode() + b"\n\n")


async def _models(_):
    return web.json_response({"data": []})


async def _serve(started, stop):
    llm = web.Application()
    llm.router.add_post("/v1/chat/completions", _complete)
    llm.router.add_get("/v1/models", _models)
    runner = web.AppRunner(llm)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    llm_port = runner.addresses[0][1]
    app = create_app(Settings(llm_url=f"http://127.0.0.1:{llm_port}/v1", warm_prompts=False))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    task = asyncio.create_task(server.serve())
    for _ in range(1000):
        if server.started and app.state.readiness.ok:
            break
        await asyncio.sleep(0.01)
    started.set_result(server.servers[0].sockets[0].getsockname()[1])
    await asyncio.to_thread(stop.wait)
    server.should_exit = True
    await task
    await runner.cleanup()


@pytest.fixture(scope="module")
def base_url():
    from concurrent.futures import Future

    started, stop = Future(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(started, stop)))
    thread.start()
    yield f"http://127.0.0.1:{started.result(timeout=30)}/v1"
    stop.set()
    thread.join(timeout=10)


@pytest.fixture
def client(base_url):
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def test_openai_whole_and_streamed(client):
    answer = client.chat.completions.create(model="default", messages=MESSAGES)
    assert answer.choices[0].message.content == "After five failures"
    assert answer.usage.total_tokens == 15
    chunks = list(
        client.chat.completions.create(
            model="default",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "After five failures"
    assert chunks[-1].usage.completion_tokens == 3


def test_openai_takes_a_prompt_by_name_and_lists_models(client):
    answer = client.post(
        "/chat/completions",
        body={
            "model": client.models.list().data[0].id,
            "prompt": {
                "template": "answer",
                "language": "pt",
                "variables": {"question": "Quando abre?", "context": "[1] Após cinco falhas."},
            },
        },
        cast_to=openai.types.chat.ChatCompletion,
    )
    assert answer.choices[0].message.content == "After five failures"


def test_openai_reads_the_errors(client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="no-such", messages=MESSAGES)
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        client.chat.completions.create(model="default", messages=MESSAGES, temperature=9)
    with pytest.raises(openai.BadRequestError, match="refused"):
        client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "refuse"}]
        )


def test_openai_sees_an_answer_that_breaks_off(client):
    stream = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "die"}], stream=True
    )
    seen = []
    with pytest.raises(openai.APIError, match="broke off"):
        seen.extend(chunk for chunk in stream)


def test_langchain_openai_whole_and_streamed(base_url):
    model = ChatOpenAI(base_url=base_url, api_key="none", model="default", max_retries=0)
    answer = model.invoke([("system", "Be brief."), ("human", "When does a breaker open?")])
    assert answer.content == "After five failures"
    assert answer.usage_metadata["total_tokens"] == 15
    pieces = [chunk.content for chunk in model.stream("When does a breaker open?")]
    assert "".join(pieces) == "After five failures"
    assert len([piece for piece in pieces if piece]) == 3
