"""Connections behind the orchestrator jitter by 300 ms, and 1 % of their requests are reset.

The hop from the gateway is left alone: the orchestrator is the one layer that retries, and who
asks the gateway decides for himself whether to ask again.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.faults.conftest import Row, proxied
from tests.faults.load import Load, steady_rate
from workshop import system as processes

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 26.0
"""Some 300 questions with six calls each: about twenty resets."""


async def test_flaky_connections(whole: processes.System, row: Row) -> None:
    url = whole.url("gateway") + "/v1/answer"
    rate = await steady_rate(url)
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(proxied(whole, "orchestrator"))
        deeper = await stack.enter_async_context(proxied(whole, "hybrid_search"))
        for proxy in [*own.values(), *deeper.values()]:
            proxy.jitter, proxy.resets = 0.3, 0.01
        async with Load(url, rate) as load:
            await asyncio.sleep(SECONDS)
    asked = len(load.outcomes)
    answered = sum(one.status == 200 for one in load.outcomes)
    full = sum(one.full for one in load.outcomes)
    extra = {name: proxy.requests / asked - 1 for name, proxy in own.items()}
    most = max(extra, key=lambda name: extra[name])
    searches = own["hybrid_search"].requests - own["hybrid_search"].resets_made
    row(
        "1 % resets, 300 ms jitter",
        requests=asked,
        answered=f"{answered / asked:.1%}",
        full=f"{full / asked:.1%}",
        resets=sum(p.resets_made for p in [*own.values(), *deeper.values()]),
        extra_calls=f"at most {extra[most]:.1%} ({most})",
    )
    assert answered >= 0.999 * asked, [(o.status, o.kind) for o in load.outcomes if o.status != 200]
    assert sum(proxy.resets_made for proxy in own.values()) > 0
    assert extra[most] <= 0.10
    # One layer retries: each search that arrived asked sparse retrieval once.
    assert deeper["sparse_retrieval"].requests == searches
