"""Each service is killed (SIGKILL) once while questions come at a steady rate."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time

import pytest

from tests.faults.conftest import Row
from tests.faults.forms import gateway
from tests.faults.load import Load, Outcome, steady_rate
from tests.faults.machine import once_more_if_busy
from workshop import system as processes
from workshop.catalogue import SERVICES

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(900)]

PHASE = 2.5
"""Seconds of load for each service: some 300 requests together, of which none may go wrong."""

SEEN = {
    **{name: {name} for name in SERVICES},
    "feedback": set(),
    "ingestion": set(),
}
"""What `degraded` may hold while a service is gone: the table in the design, line by line."""
REFUSED = {"orchestrator": "orchestrator-unavailable", "hybrid_search": "search-unavailable"}


@once_more_if_busy
async def test_each_service_is_killed_under_load(either: processes.System, row: Row) -> None:
    """Nobody stands in for a killed gateway: a connection refused or cut counts as a refusal there,
    and only there."""
    wrong: list[str] = []
    back: dict[str, float] = {}
    asked = full = cut = 0
    url, resolver = gateway(either)
    url += "/v1/answer"
    rate = await steady_rate(url, resolver)
    for name in SERVICES:
        await asyncio.to_thread(either.start, name)  # earlier crashes would make the pause longer
        pid = either.refresh().pids[name]
        async with Load(url, rate, resolver=resolver) as load:
            await asyncio.sleep(0.3)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.1)
            await load.until_full(killed, patience=15.0)
            await asyncio.to_thread(either.wait, name)
            back[name] = max(await load.until_full(killed, patience=15.0), 0.0)
            await asyncio.sleep(PHASE - 0.3 - (time.monotonic() - killed))
        assert either.refresh().pids[name] != pid
        asked += len(load.outcomes)
        full += sum(one.full for one in load.outcomes)
        cut += sum(one.status == 0 for one in load.outcomes)
        found = [(one, _wrong(name, one)) for one in load.outcomes]
        wrong += [
            f"{name}: {o.at - killed:+.2f} s {why} ({o.ms:.0f} ms)" for o, why in found if why
        ]
    worst = max(back, key=lambda name: back[name])
    row(
        "each service killed in turn",
        requests=asked,
        full=full,
        cut_by_the_gateway_itself=cut,
        not_as_designed=len(wrong),
        back_to_full=f"{statistics.median(back.values()):.1f} s, {worst} {back[worst]:.1f} s",
    )
    assert len(wrong) <= asked / 1000, wrong
    assert back[worst] <= 5.0, back


def _wrong(gone: str, one: Outcome) -> str:
    """What is not as the design says of an answer while `gone` is or may be away, or nothing."""
    if one.full:
        return ""
    if one.status == 200 and gone not in REFUSED:
        if one.degraded != SEEN[gone]:
            return f"degraded {set(one.degraded)}"
        if gone in ("generation", "post_processing") and one.body["kind"] != "extractive":
            return f"kind {one.body['kind']}"
        return ""
    if gone == "gateway" and one.status == 0:
        return "" if one.ms < 500 else one.error
    if one.status == 503 and one.kind == REFUSED.get(gone):
        return "" if one.retry_after and one.ms < 500 else "refused late or without Retry-After"
    return f"{one.status} {one.kind} {one.error}"
