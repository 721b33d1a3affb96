"""`workshop bench notebooks`: how long the solutions of the course take, cell by cell."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import course, fixed, images, lessons, system
from .evaluate import machine
from .temporary import temporary_system

LONGEST_CELL = 60.0
LONGEST_COURSE = 600.0
"""Seconds that one cell, and all solutions together, may take on two cores."""

console = Console()


@dataclass(frozen=True, slots=True)
class Timing:
    """One solution, in seconds. `slowest` is the first line of its slowest cell."""

    notebook: str
    cells: int
    seconds: float
    slowest_cell: str
    slowest: str
    slowest_seconds: float


def command(out: Path, numbers: Sequence[str] = ()) -> int:
    """Print the table, and for the whole course write notebooks.json; 1 if a limit is missed.

    The fixed questions are asked before: the model writes their answers once, and the notebooks
    find them. That time stands on a line of its own.
    """
    chosen = [course.find(number) for number in numbers] or course.load()
    left_out = {lesson.name: why for lesson in chosen if (why := images.missing(lesson))}
    for why in left_out.values():
        console.print(why)
    chosen = [lesson for lesson in chosen if lesson.name not in left_out]
    with _a_system() as gateway:
        with console.status("the fixed questions"):
            started = time.monotonic()
            fixed.ask(gateway)
            first = time.monotonic() - started
        timings = []
        for lesson in chosen:
            with console.status(lesson.name):
                images.prepare(lesson)
                timings.append(measure(lesson))
    total = sum(timing.seconds for timing in timings)
    console.print(table(timings, first, total))
    if not numbers and not left_out:
        write_report(out, timings, first, total)
    slow = [timing for timing in timings if timing.slowest_seconds > LONGEST_CELL]
    return 1 if slow or total > LONGEST_COURSE else 0


def write_report(out: Path, timings: Sequence[Timing], first: float, total: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "limits": {"cell": LONGEST_CELL, "all": LONGEST_COURSE},
        "fixed questions": round(first, 1),
        "all": round(total, 1),
        "notebooks": [_rounded(asdict(timing)) for timing in timings],
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (out / "notebooks.json").write_text(text + "\n", encoding="utf-8")


def measure(lesson: course.Lesson) -> Timing:
    """Run one solution in a fresh kernel. Its whole time has the kernel's start in it."""
    seconds: dict[str, float] = {}
    started = time.monotonic()
    notebook = lessons.run(lesson, seconds)
    whole = time.monotonic() - started
    slowest = max(seconds, key=lambda cell: seconds[cell])
    source = next(cell.source for cell in notebook.cells if cell.id == slowest)
    line = next((line for line in source.splitlines() if line.strip()), "")
    return Timing(lesson.name, len(seconds), whole, slowest, line, seconds[slowest])


def table(timings: Sequence[Timing], first: float, total: float) -> Table:
    found = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("notebook", "cells", "minutes", "slowest cell, s", "which"):
        right = column not in ("notebook", "which")
        found.add_column(column, justify="right" if right else "left", no_wrap=True)
    found.add_row("before: fixed questions", "", f"{first / 60:.2f}", "", "")
    for timing in timings:
        found.add_row(
            timing.notebook,
            str(timing.cells),
            f"{timing.seconds / 60:.2f}",
            f"{timing.slowest_seconds:.1f}",
            timing.slowest_cell,
        )
    longest = max((timing.slowest_seconds for timing in timings), default=0.0)
    found.add_row("all", "", f"{total / 60:.2f}", f"{longest:.1f}", "")
    limits = (f"{LONGEST_COURSE / 60:.0f}", f"{LONGEST_CELL:.0f}")
    found.add_row("at most", "", *limits, "", style="dim")
    return found


def _rounded(values: dict[str, object]) -> dict[str, object]:
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in values.items()}


@contextmanager
def _a_system() -> Iterator[str]:
    """The running system's gateway; where none runs, a temporary one's."""
    if (here := system.running()) is not None:
        yield here.url("gateway")
        return
    with console.status("starting a system of its own"):
        started = temporary_system()
    with started as temporary, _environment(temporary.environment):
        yield temporary.url("gateway")


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Kernels inherit this process's environment: it leads them to the temporary system."""
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
