"""Every answer of one service is a 500: no hop may see more calls than when all is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from tests.faults.conftest import Row, proxied
from tests.faults.llm import ScriptedModel
from tests.faults.load import ENGLISH, Load, Outcome, steady_rate
from tests.faults.machine import once_more_if_busy
from workshop import system as processes
from workshop.fault_proxy import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 1.5

Hops = Mapping[tuple[str, str], FaultProxy]


@once_more_if_busy
async def test_a_service_that_fails_is_not_called_more(
    whole: processes.System, model: ScriptedModel, row: Row
) -> None:
    """Compared with the same questions when all is well, because not every hop has one call a
    question: English asks dense retrieval for two kinds of vectors."""
    url = whole.url("gateway") + "/v1/answer"
    callers = ("gateway", "orchestrator", "hybrid_search", "dense_retrieval")
    async with FaultProxy(model.url) as llm:
        settings = {"GENERATION_LLM_URL": llm.url, "GENERATION_CACHE_BYTES": "0"}
        async with proxied(whole, *callers, generation=settings) as hops:
            hops["generation", "llm"] = llm
            ratios, used = await _each_fails(url, hops)
    worst = max(ratios, key=lambda hop: ratios[hop])
    row(
        "all answers of one service are 500",
        services=len({name for _, name in used}),
        hops=len(used),
        calls=f"at most {ratios[worst]:.2f} x healthy ({worst})",
    )
    assert len(used) == 11, used
    assert ratios[worst] <= 1.1, ratios


async def _each_fails(
    url: str, hops: Hops
) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """Calls on each hop as a multiple of those when all is well, while each service fails in turn;
    and the calls a question when all is well, of the hops that have any."""
    rate = await steady_rate(url)
    healthy, outcomes = await _calls(url, rate, hops)
    assert all(one.full for one in outcomes)
    used = {hop: calls for hop, calls in healthy.items() if calls}
    ratios: dict[str, float] = {}
    for failing in {name: None for _, name in used}:
        for (_, name), proxy in hops.items():
            proxy.failing = name == failing
        calls, outcomes = await _calls(url, rate, hops)
        for caller, name in used:
            hop = f"{failing} fails: {caller} to {name}"
            ratios[hop] = calls[caller, name] / used[caller, name]
        wrong = [(o.status, o.kind, set(o.degraded)) for o in outcomes if not _right(failing, o)]
        assert not wrong, (failing, wrong)
        for proxy in hops.values():
            proxy.failing = False
        healed = time.monotonic()
        async with Load(url, rate, ENGLISH) as load:
            await load.until_full(healed, patience=10.0)
    return ratios, used


async def _calls(
    url: str, rate: float, hops: Hops
) -> tuple[dict[tuple[str, str], float], list[Outcome]]:
    """Calls a question on every hop, and what became of the questions."""
    before = {hop: proxy.requests for hop, proxy in hops.items()}
    async with Load(url, rate, ENGLISH) as load:
        await asyncio.sleep(SECONDS)
    asked = len(load.outcomes)
    return {hop: (hops[hop].requests - before[hop]) / asked for hop in hops}, load.outcomes


def _right(failing: str, one: Outcome) -> bool:
    if failing == "orchestrator":
        return one.status in (502, 503)
    if failing == "hybrid_search":
        return one.status == 503 and one.kind == "search-unavailable"
    return one.status == 200 and one.degraded == {"generation" if failing == "llm" else failing}
