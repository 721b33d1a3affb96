"""Ten times more questions than can be answered, for thirty seconds.

What bounds a RAG system is its model, and so it is here: the scripted one takes a second, four
answers are made at once, and the processors have time left. Beyond that the orchestrator refuses.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from tests.faults.conftest import Row, routed
from tests.faults.llm import ScriptedModel
from tests.faults.load import QUESTIONS, Load, Outcome, ask, percentile
from tests.faults.machine import once_more_if_busy
from workshop import system as processes

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

PLACES, SECONDS = 4, 30.0


@once_more_if_busy
async def test_overload(whole: processes.System, model: ScriptedModel, row: Row) -> None:
    url = whole.url("gateway") + "/v1/answer"
    settings = {
        "orchestrator": {"ORCHESTRATOR_MAX_CONCURRENCY": str(PLACES)},
        "generation": {"GENERATION_CACHE_BYTES": "0"},
    }
    async with routed(whole, **settings):
        model.follow(pause=1.0)
        try:
            before = await _closed_loop(url, 4.0)
            capacity = len(before) / (before[-1].at + before[-1].ms / 1000 - before[0].at)
            async with Load(url, 10 * capacity) as load:
                await asyncio.sleep(SECONDS)
                ended = time.monotonic()
            await asyncio.sleep(max(0.0, ended + 2.0 - time.monotonic()))
            after = await _closed_loop(url, 1.0)
        finally:
            model.follow()
    good = [one for one in load.outcomes if one.status == 200]
    refused = [one for one in load.outcomes if one.status == 503]
    rejects = [one.ms for one in refused]
    goodput = len(good) / SECONDS
    slower = percentile([o.ms for o in after], 0.5) / percentile([o.ms for o in before], 0.5)
    row(
        "10 x overload for 30 s",
        capacity=f"{capacity:.1f}/s",
        goodput=f"{goodput / capacity:.0%}",
        refused=len(refused),
        refusal_p50=f"{percentile(rejects, 0.5):.0f} ms",
        p99=f"{percentile(rejects, 0.99):.0f} ms",
        answer_2_s_after=f"{slower:.2f} x before",
    )
    assert len(good) + len(refused) == len(load.outcomes)
    assert all(one.retry_after and one.kind == "overloaded" for one in refused)
    assert goodput >= 0.9 * capacity
    assert percentile(rejects, 0.99) <= 20.0
    assert all(one.full for one in after)
    assert slower <= 1.5


async def _closed_loop(url: str, seconds: float) -> list[Outcome]:
    """As many callers as there are places, each with one question after the other."""
    outcomes: list[Outcome] = []
    async with aiohttp.ClientSession() as session:

        async def caller() -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                question = QUESTIONS[len(outcomes) % len(QUESTIONS)]
                outcomes.append(await ask(session, url, {"question": question}))

        await asyncio.gather(*(caller() for _ in range(PLACES)))
    return outcomes
