"""The model dies in the middle of an answer, or its reader leaves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from services.chassis.sse import ServerSentEvent, parse_events
from tests.faults.conftest import Row, routed
from tests.faults.llm import ScriptedModel
from tests.faults.load import QUESTIONS
from tests.faults.machine import once_more_if_busy
from workshop import system as processes

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

CHAIN = ("gateway", "orchestrator", "generation")
ANSWER = {"question": QUESTIONS[0], "stream": True}
CHAT = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "stream": True}


@pytest.fixture
async def slow_model(whole: processes.System, model: ScriptedModel) -> AsyncIterator[ScriptedModel]:
    """Words come every 50 ms, and nothing is remembered."""
    async with routed(whole, generation={"GENERATION_CACHE_BYTES": "0"}):
        model.follow(between=0.05)
        yield model
        model.follow()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def _events(session: aiohttp.ClientSession, url: str, body: Any) -> list[ServerSentEvent]:
    async with session.post(url, json=body) as response:
        assert response.status == 200, await response.text()
        return [event async for event in parse_events(response.content.iter_any())]


@once_more_if_busy
async def test_the_model_dies_in_the_middle(
    whole: processes.System, slow_model: ScriptedModel, session: aiohttp.ClientSession, row: Row
) -> None:
    """Whoever streams from generation gets an error event. Who asked a question gets what stands
    in: an extractive answer in place of the draft."""
    slow_model.follow(between=0.05, dies_after=3)
    variables = {"question": QUESTIONS[0], "context": "[1] One sentence of a few words."}
    prompt = {"template": "answer", "language": "en", "variables": variables}
    asked = {"prompt": prompt, "stream": True}
    raw = await _events(session, whole.url("generation") + "/v1/chat/completions", asked)
    answer = await _events(session, whole.url("gateway") + "/v1/answer", ANSWER)
    row(
        "the model dies mid-stream",
        generation_ends_with=raw[-1].json()["error"]["code"],
        answer=f"{answer[-1].json()['kind']}, degraded {answer[-1].json()['degraded']}",
    )
    assert raw[-1].json()["error"]["type"] == "server_error"
    assert "[DONE]" not in [event.data for event in raw]
    assert "token" in [event.event for event in answer]
    assert answer[-1].event == "answer"
    assert answer[-1].json()["kind"] == "extractive"
    assert answer[-1].json()["degraded"] == ["generation"]


async def test_the_orchestrator_dies_in_the_middle(
    whole: processes.System, slow_model: ScriptedModel, session: aiohttp.ClientSession, row: Row
) -> None:
    """Here nobody is left who could stand in: the last event says so."""
    last = {}
    for path, body in (
        ("/v1/answer", ANSWER),
        ("/v1/chat/completions", CHAT | {"model": "rag-workshop-draft"}),
    ):
        async with session.post(whole.url("gateway") + path, json=body) as response:
            events = parse_events(response.content.iter_any())
            seen = [await anext(events) for _ in range(6)]
            os.kill(whole.refresh().pids["orchestrator"], signal.SIGKILL)
            seen += [event async for event in events]
        last[path] = seen[-1]
        await asyncio.to_thread(whole.wait, "orchestrator")
        await asyncio.to_thread(whole.start, "orchestrator")
    row("the orchestrator dies mid-stream", **{"/v1/answer": last["/v1/answer"].event})
    assert last["/v1/answer"].event == "error"
    assert last["/v1/answer"].json()["status"] in (502, 503)
    assert last["/v1/chat/completions"].json()["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/answer", ANSWER),
        ("/v1/chat/completions", CHAT),
        ("/v1/answer", {"question": QUESTIONS[0]}),
    ],
    ids=["stream", "chat", "whole answer"],
)
@once_more_if_busy
async def test_the_reader_leaves_in_the_middle(
    whole: processes.System,
    slow_model: ScriptedModel,
    session: aiohttp.ClientSession,
    row: Row,
    path: str,
    body: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    before = await _tasks(session, whole)
    waits = []
    for _ in range(10):
        calls, left = slow_model.calls, len(slow_model.left_at)
        asking = asyncio.create_task(_events(session, whole.url("gateway") + path, body))
        await _until(lambda calls=calls: slow_model.calls > calls)
        await asyncio.sleep(0.12)
        gone = time.monotonic()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await _until(lambda left=left: len(slow_model.left_at) > left)
        waits.append((slow_model.left_at[left] - gone) * 1000)
    await asyncio.sleep(0.5)
    after = await _tasks(session, whole)
    row(
        f"the reader leaves: {request.node.callspec.id}",
        times=len(waits),
        model_told_within=f"{max(waits):.0f} ms",
        tasks_left=sum(after.values()) - sum(before.values()),
    )
    assert max(waits) <= 100
    assert after == before


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not true():  # noqa: ASYNC110 - it comes true in another program
            await asyncio.sleep(0.005)


async def _tasks(session: aiohttp.ClientSession, whole: processes.System) -> dict[str, float]:
    """Tasks in the event loop of every service on the way."""
    found = {}
    for name in CHAIN:
        async with session.get(whole.url(name) + "/metrics") as response:
            text = await response.text()
        assert "\nhttp_requests_active 0.0\n" in text, name
        found[name] = float(re.findall(r"^asyncio_tasks (\S+)$", text, re.MULTILINE)[0])
    return found
