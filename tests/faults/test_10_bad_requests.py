"""Huge, slow, malformed and wrongly typed requests come to the gateway beside good ones."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from tests.faults.conftest import Row, routed
from tests.faults.load import Load, Outcome, percentile, steady_rate
from tests.faults.machine import once_more_if_busy
from workshop import system as processes

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS, TURNS = 3.0, 5
SLOW = 1.0
LIMITS = {
    "GATEWAY_BODY_PAUSE": str(SLOW / 2),
    "GATEWAY_BODY_TIME": str(SLOW),
    "GATEWAY_HEAD_TIME": str(SLOW),
}
HUGE = 100_000_000
BODIES = {
    "malformed": b'{"question": "What is',
    "no object": b"[1, 2, 3]",
    "wrong type": b'{"question": {"text": 7}}',
    "unknown field": b'{"question": "What?", "colour": "red"}',
    "no UTF-8": b'{"question": "\xff\xfe"}',
}


@once_more_if_busy
async def test_bad_requests(whole: processes.System, row: Row) -> None:
    """Good and bad times alternate, so that what else the machine does hits both alike; the median
    of their tails is what one of them is like."""
    url = whole.url("gateway") + "/v1/answer"
    quiet: list[list[Outcome]] = []
    beside: list[list[Outcome]] = []
    statuses: dict[str, set[int]] = {}
    async with routed(whole, gateway=LIMITS):
        rate = await steady_rate(url)
        await _attack(url, statuses)  # once before: what the first request of a kind loads, stays
        process = psutil.Process(whole.refresh().pids["gateway"])
        before = peak = process.memory_info().rss
        for _ in range(TURNS):
            async with Load(url, rate) as load:
                await asyncio.sleep(SECONDS)
            quiet.append(load.outcomes)
            async with Load(url, rate) as load:
                attack = asyncio.create_task(_attack(url, statuses))
                while not attack.done():
                    peak = max(peak, process.memory_info().rss)
                    await asyncio.sleep(0.05)
                await attack
            beside.append(load.outcomes)
    slower = _p99(beside) / _p99(quiet)
    grown = (peak - before) / 1e6
    row(
        "100 MB, slow and malformed requests",
        kinds=len(statuses),
        statuses=sorted({status for found in statuses.values() for status in found}),
        gateway_memory=f"{grown:+.1f} MB",
        neighbours_p99=f"{_p99(quiet):.0f} ms alone, {slower:.2f} x beside",
    )
    assert all(400 <= s < 500 for found in statuses.values() for s in found), statuses
    assert all(one.full for turn in [*quiet, *beside] for one in turn)
    assert grown <= 10.0
    assert slower <= 1.5


def _p99(turns: list[list[Outcome]]) -> float:
    return statistics.median(percentile([one.ms for one in turn], 0.99) for turn in turns)


async def _attack(url: str, statuses: dict[str, set[int]]) -> None:
    """Some of each kind, for about `SECONDS`; adds the statuses that came back."""
    end = time.monotonic() + SECONDS - SLOW

    async def again(name: str, attack: Callable[[], Awaitable[int]], pause: float) -> None:
        while time.monotonic() < end:
            statuses.setdefault(name, set()).add(await attack())
            await asyncio.sleep(pause)

    async with aiohttp.ClientSession() as session:

        async def post(body: bytes) -> int:
            headers = {"content-type": "application/json"}
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()
                return response.status

        kinds = [again(name, lambda b=body: post(b), 0.1) for name, body in BODIES.items()]
        kinds += [
            again("100 MB, announced", lambda: _raw(url, _announced(HUGE)), 0.5),
            again("100 MB, in chunks", lambda: _raw(url, _chunks(HUGE)), 0.5),
        ]
        kinds += [again("slow body", lambda: _raw(url, _slow_body()), 0.2) for _ in range(20)]
        kinds += [again("slow head", lambda: _raw(url, _slow_head()), 0.2) for _ in range(20)]
        await asyncio.gather(*kinds)


_HEAD = b"POST /v1/answer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"


async def _announced(size: int) -> AsyncIterator[bytes]:
    yield _HEAD + b"content-length: %d\r\n\r\n" % size
    for _ in range(size // 50_000):
        yield b" " * 50_000


async def _chunks(size: int) -> AsyncIterator[bytes]:
    yield _HEAD + b"transfer-encoding: chunked\r\n\r\n"
    for _ in range(size // 50_000):
        yield b"c350\r\n" + b" " * 50_000 + b"\r\n"


async def _slow_body() -> AsyncIterator[bytes]:
    yield _HEAD + b"content-length: 1000\r\n\r\n"
    while True:
        await asyncio.sleep(0.3)
        yield b" "


async def _slow_head() -> AsyncIterator[bytes]:
    yield _HEAD
    while True:
        await asyncio.sleep(0.3)
        yield b"x-more: 1\r\n"


async def _raw(url: str, pieces: AsyncIterator[bytes]) -> int:
    """Send `pieces` until an answer comes; its status. 0 when the connection ends without."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)

    async def send() -> None:
        with contextlib.suppress(OSError):
            async for piece in pieces:
                writer.write(piece)
                await writer.drain()

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(15.0):
            line = await reader.readline()
        return int(line.split()[1]) if line else 0
    except OSError:
        return 0
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
