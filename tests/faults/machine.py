"""What else the machine does while a row of the table is measured."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil

from workshop.system import System

BUSY = 0.25
"""Processors that other programs used on average, from which a missed limit may be theirs."""

RowTest = Callable[..., Awaitable[None]]


def once_more_if_busy(test: RowTest) -> RowTest:
    """A row that misses its limit is measured once more if other programs used the processors
    meanwhile, and has to meet it then. On a machine of its own it has one chance only."""

    @functools.wraps(test)
    async def run(*, row: Callable[..., None], **fixtures: Any) -> None:
        others = Others(fixtures.get("whole") or fixtures["either"])
        try:
            await test(row=row, **fixtures)
        except AssertionError as missed:
            if (used := others.used()) < BUSY:
                raise
            row(
                "  missed, once more",
                others_used=f"{used:.1f} of {psutil.cpu_count()} processors",
                because=str(missed).partition("\n")[0][:100],
            )
        else:
            return
        await test(row=row, **fixtures)

    return run


class Others:
    """Processor time of all programs but this one, what it started and the system's containers."""

    def __init__(self, here: System) -> None:
        self._here = here
        self._at, self._all, self._own = time.monotonic(), _all(), self._times()

    def used(self) -> float:
        """Since it was made, in processors, as a mean."""
        own = sum(seconds - self._own.get(one, 0.0) for one, seconds in self._times().items())
        return max(0.0, (_all() - self._all - own) / (time.monotonic() - self._at))

    def _times(self) -> dict[tuple[int, float], float]:
        """Seconds of each of the system's processes that lives, by its id and its start."""
        seconds = {}
        for pid in (os.getpid(), *self._here.refresh().pids.values()):
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        seconds[process.pid, process.create_time()] = times.user + times.system
        return seconds


def _all() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))
