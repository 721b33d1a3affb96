"""Connections behind the gateway jitter by 300 ms, and 1 % of their requests are reset.

The hop from the gateway is left alone: behind it each hop has one layer that retries, and who asks
the gateway decides for himself whether to ask again.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import Row, proxied
from tests.faults.llm import ScriptedModel
from tests.faults.load import Load, steady_rate
from tests.faults.machine import once_more_if_busy
from workshop import system as processes
from workshop.fault_proxy import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 20.0
"""Some 200 questions with nine calls each: about twenty resets."""


@once_more_if_busy
async def test_flaky_connections(whole: processes.System, model: ScriptedModel, row: Row) -> None:
    """The orchestrator retries its calls, and generation those to the model. Nobody else does, and
    none of the two repeats what the other has repeated."""
    url = whole.url("gateway") + "/v1/answer"
    async with FaultProxy(model.url) as llm:
        settings = {"GENERATION_LLM_URL": llm.url, "GENERATION_CACHE_BYTES": "0"}
        async with proxied(whole, "orchestrator", "hybrid_search", generation=settings) as hops:
            hops["generation", "llm"] = llm
            rate = await steady_rate(url)
            for proxy in hops.values():
                proxy.requests, proxy.jitter, proxy.resets = 0, 0.3, 0.01
            async with Load(url, rate) as load:
                await asyncio.sleep(SECONDS)
    asked = len(load.outcomes)
    answered = sum(one.status == 200 for one in load.outcomes)
    full = sum(one.full for one in load.outcomes)
    own = {name: proxy for (caller, name), proxy in hops.items() if caller == "orchestrator"}
    extra = {name: proxy.requests / asked - 1 for name, proxy in own.items()}
    extra["llm"] = llm.requests / _arrived(own["generation"]) - 1
    most = max(extra, key=lambda name: extra[name])
    row(
        "1 % resets, 300 ms jitter",
        requests=asked,
        answered=f"{answered / asked:.1%}",
        full=f"{full / asked:.1%}",
        resets=sum(proxy.resets_made for proxy in hops.values()),
        extra_calls=f"at most {extra[most]:.1%} ({most})",
    )
    assert answered >= 0.999 * asked, [(o.status, o.kind) for o in load.outcomes if o.status != 200]
    assert sum(proxy.resets_made for proxy in own.values()) > 0
    assert extra[most] <= 0.10
    # One layer retries: each search that arrived asked sparse retrieval once.
    assert hops["hybrid_search", "sparse_retrieval"].requests == _arrived(own["hybrid_search"])


def _arrived(proxy: FaultProxy) -> int:
    return proxy.requests - proxy.resets_made
