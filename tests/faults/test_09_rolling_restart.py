"""Every service is restarted (SIGTERM), one after the other, while questions come."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.conftest import Row
from tests.faults.forms import OWN_STORE, gateway, renew
from tests.faults.load import Load, percentile, steady_rate
from workshop import system as processes
from workshop.catalogue import SERVICES

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(900)]


async def test_rolling_restart(either: processes.System, row: Row) -> None:
    url, resolver = gateway(either)
    url += "/v1/answer"
    rate = await steady_rate(url, resolver)
    before = either.refresh().pids
    started = time.monotonic()
    async with Load(url, rate, resolver=resolver) as load:
        for name in SERVICES:
            await renew(either, name)
            if name in OWN_STORE:  # it was gone, and its callers have to find that it is back
                await load.until_full(time.monotonic(), patience=15.0)
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
    after = either.refresh().pids
    assert all(after[name] != before[name] for name in SERVICES)
