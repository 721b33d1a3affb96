"""feedback is killed while it stores, fifty times; then its disk is full."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from tests.faults.alone import processes_alone, until_ready
from tests.faults.conftest import Row
from tests.faults.forms import kill

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS, BURST = 50, 40


async def test_killed_in_the_middle_of_a_burst(tmp_path: Path, row: Row) -> None:
    """Each time after some acknowledgements, a random number. What was not acknowledged is sent
    again with the same key, as a careful sender does."""
    chance = random.Random(7)
    acknowledged: list[str] = []
    unsure: list[str] = []
    sent = again = 0
    with processes_alone(tmp_path, ("feedback",), {"FEEDBACK_CONSUME": "false"}) as here:
        url = here.url("feedback")
        async with aiohttp.ClientSession() as session:
            for number in range(ROUNDS):
                new = [f"{number}-{n}" for n in range(BURST - len(unsure))]
                again, sent = again + len(unsure), sent + len(new)
                enough = len(acknowledged) + chance.randrange(1, BURST - 5)
                burst = asyncio.create_task(_send(session, url, unsure + new, acknowledged))
                while len(acknowledged) < enough and not burst.done():  # noqa: ASYNC110
                    await asyncio.sleep(0)
                await kill(here, "feedback")
                unsure = await burst
                await until_ready(session, url)
            assert not await _send(session, url, unsure, acknowledged)
    stored = _stored(tmp_path)
    row(
        f"feedback killed mid-burst, {ROUNDS} times",
        events=sent,
        cut_off_and_sent_again=again,
        acknowledged=len(acknowledged),
        stored=len(stored),
        distinct=len(set(stored)),
    )
    assert again > ROUNDS  # it was the middle of the bursts
    assert sorted(stored) == sorted(acknowledged)
    assert len(acknowledged) == sent


async def test_the_disk_is_full(tmp_path: Path, row: Row) -> None:
    """Filled up by a limit of SQLite's own, which fails as a full disk does (SQLITE_FULL)."""
    limited = {"FEEDBACK_CONSUME": "false", "FEEDBACK_MAX_DATABASE_BYTES": "400000"}
    statuses: dict[str, int] = {}
    with processes_alone(tmp_path, ("feedback",), limited) as here:
        async with aiohttp.ClientSession() as session:
            for number in range(20):
                keys = [f"{number}-{n}" for n in range(BURST)]
                some = await asyncio.gather(
                    *(_give(session, here.url("feedback"), key, 2000) for key in keys)
                )
                statuses |= zip(keys, some, strict=True)
    stored = _stored(tmp_path)
    acknowledged = [key for key, status in statuses.items() if status == 201]
    row(
        "feedback's disk is full",
        events=len(statuses),
        acknowledged=len(acknowledged),
        refused_503=sum(status == 503 for status in statuses.values()),
        stored=len(stored),
    )
    assert set(statuses.values()) == {201, 503}
    assert sorted(stored) == sorted(acknowledged)


async def _send(
    session: aiohttp.ClientSession, url: str, keys: list[str], acknowledged: list[str]
) -> list[str]:
    """All at once; the keys that were not acknowledged."""

    async def one(key: str) -> bool:
        known = await _give(session, url, key) == 201
        if known:
            acknowledged.append(key)
        return known

    results = await asyncio.gather(*(one(key) for key in keys))
    return [key for key, known in zip(keys, results, strict=True) if not known]


async def _give(session: aiohttp.ClientSession, url: str, key: str, size: int = 10) -> int:
    """Status; 0 when the connection broke."""
    body = {"request_id": key, "kind": "comment", "comment": "x" * size}
    try:
        async with session.post(
            f"{url}/v1/feedback", json=body, headers={"idempotency-key": key}
        ) as response:
            await response.read()
            return response.status
    except aiohttp.ClientError:
        return 0


def _stored(home: Path) -> list[str]:
    """The keys on disk, as often as they are there."""
    file = home / "data" / "feedback" / "feedback.db"
    with sqlite3.connect(file) as db:
        return [row[0] for row in db.execute("SELECT request_id FROM feedback")]
