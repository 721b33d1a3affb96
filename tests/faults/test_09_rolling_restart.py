"""Every service is restarted (SIGTERM), one after the other, while questions come."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.conftest import Row
from tests.faults.load import Load, percentile, steady_rate
from workshop import system as processes
from workshop.catalogue import SERVICES

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_rolling_restart(whole: processes.System, row: Row) -> None:
    url = whole.url("gateway") + "/v1/answer"
    rate = await steady_rate(url)
    before = whole.refresh().pids
    started = time.monotonic()
    async with Load(url, rate) as load:
        for name in SERVICES:
            await asyncio.to_thread(whole.restart, name)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(whole.wait, name)
        await asyncio.sleep(1.0)
    failed = [one for one in load.outcomes if one.status != 200]
    row(
        "rolling restart of all services",
        services=len(SERVICES),
        seconds=f"{time.monotonic() - started:.0f}",
        requests=len(load.outcomes),
        failed=len(failed),
        degraded=sum(bool(one.degraded) for one in load.outcomes),
        slowest=f"{percentile([one.ms for one in load.outcomes], 1.0):.0f} ms",
    )
    assert not failed, [(one.status, one.kind, one.error, round(one.ms)) for one in failed]
    after = whole.refresh().pids
    assert all(after[name] != before[name] for name in SERVICES)
