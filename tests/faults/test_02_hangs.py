"""A service accepts connections and never answers: worse than one that is gone, because its callers
wait."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from tests.faults.conftest import Row, routed
from tests.faults.load import PORTUGUESE, Load, Outcome, ask, steady_rate
from tests.faults.machine import once_more_if_busy
from workshop import system as processes
from workshop.fault_proxy import FaultProxy

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

DEADLINE = 1.0
"""Seconds, as the caller's `x-deadline-ms` says."""

ONE_LIST = PORTUGUESE[0]
"""In Portuguese, which asks dense retrieval once; English asks it twice at the same time."""


@pytest.mark.parametrize(
    ("hung", "caller", "setting"),
    [
        ("reranking", "orchestrator", "ORCHESTRATOR_RERANKING_URL"),
        ("dense_retrieval", "hybrid_search", "HYBRID_DENSE_URL"),
    ],
)
@once_more_if_busy
async def test_a_service_hangs(
    whole: processes.System, row: Row, hung: str, caller: str, setting: str
) -> None:
    headers = {"x-deadline-ms": str(int(DEADLINE * 1000))}
    url = whole.url("gateway") + "/v1/answer"
    async with (
        FaultProxy(whole.url(hung)) as proxy,
        routed(whole, **{caller: {setting: proxy.url}}),
        aiohttp.ClientSession(headers=headers) as session,
    ):
        rate = await steady_rate(url)
        before = await ask(session, url, {"question": ONE_LIST})
        assert before.full, before
        proxy.silent, passed = True, proxy.requests

        slow: list[Outcome] = []
        while proxy.requests - passed == len(slow) < 10:
            slow.append(await ask(session, url, {"question": ONE_LIST}))
        calls_to_open = proxy.requests - passed

        # Open: a call each second and no more, however many ask.
        passed, proxy.waiting_most = proxy.requests, 0
        started = time.monotonic()
        async with Load(url, rate, headers=headers) as load:
            await asyncio.sleep(3.0)
        seconds = time.monotonic() - started
        probes = proxy.requests - passed

        proxy.silent, healed = False, time.monotonic()
        async with Load(url, rate, headers=headers) as later:
            back = await later.until_full(healed, patience=5.0)

    during = [*slow, *load.outcomes]
    late = max(one.ms for one in during) - DEADLINE * 1000
    quick = sum(one.ms < 250 for one in load.outcomes)
    row(
        f"{hung} hangs",
        answers=len(during),
        slowest=f"deadline {late:+.0f} ms",
        calls_until_open=calls_to_open,
        probes=f"{probes} in {seconds:.1f} s ({proxy.waiting_most} at once)",
        under_250_ms=f"{quick}/{len(load.outcomes)}",
        back_to_full=f"{back:.1f} s",
    )
    assert all(one.status == 200 and one.degraded == {hung} for one in during), [
        (one.status, one.kind, set(one.degraded)) for one in during
    ]
    assert late <= 50
    assert calls_to_open == 5
    assert proxy.waiting_most == 1
    assert 1 <= probes <= seconds / 1.0 + 1
