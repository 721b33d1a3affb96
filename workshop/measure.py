"""Timing two things fairly on a noisy machine: interleaved, warmed up, medians and ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one arm."""

    name: str
    milliseconds: list[float]

    @property
    def p50(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def p99(self) -> float:
        """The nearest-rank 99th percentile; the maximum when there are fewer than 100 values."""
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def interleaved(
    arms: dict[str, Callable[[int], None]],
    rounds: int,
    *,
    warm_up: int = 3,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Times]:
    """Run every arm once a round, the order turned round by round, so that drift hits all alike.

    An arm is called with the round's number. The first `warm_up` rounds are not counted.
    """
    names = list(arms)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            arms[name](max(number, 0))
            if number >= 0:
                times[name].append((time.perf_counter() - started) * 1000)
        progress(number + warm_up + 1, rounds + warm_up)
    return [Times(name, times[name]) for name in names]


def proportional_memory(pids: Sequence[int], without: Sequence[str] = ()) -> int:
    """Bytes of memory of these processes, each shared page divided by its sharers (PSS).

    Pages of mapped files whose path contains one of `without` (model files) are left out. Linux
    only; elsewhere the unique memory (USS) stands in, which counts no shared page at all.
    """
    total = 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if without and psutil.LINUX:
                for region in process.memory_maps(grouped=False):
                    if not any(part in region.path for part in without):
                        total += region.pss
            else:
                info = process.memory_full_info()
                total += getattr(info, "pss", info.uss)
        except psutil.NoSuchProcess:
            continue
    return total
