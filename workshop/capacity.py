"""`workshop bench capacity`: what a question costs here, and the machines that follow for others.

Measured slopes, times a load, through the utilisation law, are machines. Nothing here is a
benchmark of a cluster: the sheet names each assumption, and the first real load test replaces it.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from . import client, fixed, paths, sync, system
from .errors import WorkshopError

USERS = (10, 10_000, 1_000_000)
PASSAGES = (100_000, 10_000_000, 1_000_000_000)

THINK_S = 30.0
"""Seconds in which a user reads an answer and types the next question. An assumption."""
BUSY = 0.6
"""Share of its cores that a machine may use; above it queues grow quickly (handbook, Scaling)."""
SPARE = 1
"""Machines that may be gone without anybody noticing: N+1."""
CORES, MEMORY_GB = 16, 64
"""A machine of the sheet. An assumption: a common size at cloud providers."""
COPIES = 3
"""Copies of each shard, as in compose/kubernetes/overlays/production."""
MEMORY_SHARE = 0.7
"""Share of a machine's memory for vectors; the rest is for the system and for peaks."""

Machines = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Slopes:
    """Cost of one question in milliseconds of one core, and of one passage in the vector store.

    `passage_bytes` is memory of the store with 384 float32 a passage; `passage_ns` is core time
    of an exact search for each passage that it compares with.
    """

    services_ms: float
    model_ms: float
    answer_s: float
    passage_bytes: float
    passage_ns: float


def machines_for(
    users: float,
    think_s: float,
    answer_s: float,
    core_ms: float,
    cores: int,
    busy: float = BUSY,
    spare: int = SPARE,
) -> int:
    """Machines for so many users at once.

    The interactive response time law gives the questions a second, the utilisation law the cores
    that they keep busy (Denning and Buzen, ACM Computing Surveys 10 (3), 1978).
    """
    per_second = users / (think_s + answer_s)
    return math.ceil(per_second * core_ms / 1000 / (cores * busy)) + spare


def nodes_for(passages: float, passage_bytes: float) -> int:
    """Machines that hold so many passages, each on `COPIES` of them."""
    room = MEMORY_GB * 1e9 * MEMORY_SHARE
    return max(COPIES, math.ceil(passages * passage_bytes * COPIES / room))


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows of the capacity sheet, by the name of their columns."""

    users: list[dict[str, float]]
    passages: list[dict[str, float]]

    def __str__(self) -> str:
        return "\n\n".join(_table(rows) for rows in (self.users, self.passages))

    __repr__ = __str__


def sheet(slopes: Slopes, *, machines: Machines = machines_for) -> Sheet:
    """Machines for `USERS` and `PASSAGES`, of `CORES` cores and `MEMORY_GB` gigabytes each."""
    users: list[dict[str, float]] = [
        {
            "users": count,
            "questions/s": count / (THINK_S + slopes.answer_s),
            "services": machines(count, THINK_S, slopes.answer_s, slopes.services_ms, CORES),
            "model": machines(count, THINK_S, slopes.answer_s, slopes.model_ms, CORES),
        }
        for count in USERS
    ]
    passages: list[dict[str, float]] = [
        {
            "passages": count,
            "GB, one copy": count * slopes.passage_bytes / 1e9,
            f"machines, {COPIES} copies": nodes_for(count, slopes.passage_bytes),
            "exact search, core s": count * slopes.passage_ns / 1e9,
        }
        for count in PASSAGES
    ]
    return Sheet(users, passages)


def _table(rows: Sequence[dict[str, float]]) -> str:
    lines = [list(rows[0]), *([_short(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def _short(value: float) -> str:
    """Whole numbers as they are, others with two digits that count."""
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}"


# -- measuring ----------------------------------------------------------------------------


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that these processes and their children have used so far."""
    total = 0.0
    try:
        for pid in pids:
            process = psutil.Process(pid)
            for part in (process, *process.children(recursive=True)):
                used = part.cpu_times()
                total += used.user + used.system
    except psutil.NoSuchProcess as error:
        raise WorkshopError(
            f"The process {error.pid} has ended meanwhile.", "Measure again."
        ) from None
    return total


def measure(here: system.System, questions: int = 5) -> Slopes:
    """Ask questions that nobody has asked before; of the core time of all processes, medians."""
    if "project" in here.state:
        raise WorkshopError("The CPU time of containers is not read.", "Use the process form.")
    pids = here.refresh().pids
    model = [pids["llm_server"]]
    services = [pid for name, pid in pids.items() if name not in ("llm_server", "broker")]
    sync.wait(client.answer(here.url("gateway"), _question(0)))  # pays for what is loaded late
    rows = []
    for number in range(questions):
        before = cpu_seconds(services), cpu_seconds(model), time.perf_counter()
        # A number in the question keeps the caches from knowing it.
        asked = f"{_question(number)} ({time.time_ns() // 1_000_000 % 1_000_000})"
        sync.wait(client.answer(here.url("gateway"), asked))
        after = cpu_seconds(services), cpu_seconds(model), time.perf_counter()
        rows.append([late - early for early, late in zip(before, after, strict=True)])
    services_s, model_s, answer_s = (
        statistics.median(column) for column in zip(*rows, strict=True)
    )
    passage_bytes, passage_ns = passage_slopes()
    return Slopes(services_s * 1000, model_s * 1000, answer_s, passage_bytes, passage_ns)


def _question(number: int) -> str:
    return fixed.fixed_questions()[number % fixed.COUNT]["question"]


def passage_slopes(report: Path | None = None) -> tuple[float, float]:
    """(bytes, nanoseconds) for each further passage: lines through what `workshop bench` found."""
    report = report or paths.ROOT / "reports" / "bench.json"
    found = []
    for figure in json.loads(report.read_text(encoding="utf-8"))["figures"]:
        if count := re.fullmatch(r"dense search over ([\d,]+) passages, p50", figure["what"]):
            (memory,) = re.findall(r"(\d+) MB", figure["note"])
            size = int(count[1].replace(",", ""))
            found.append((size, float(memory) * 1e6, float(figure["value"].split()[0]) * 1e6))
    if len(found) < 2:
        raise WorkshopError(f"{report.name} has no growing collection.", "Run `workshop bench`.")
    sizes, memory, times = zip(*found, strict=True)
    return float(np.polyfit(sizes, memory, 1)[0]), float(np.polyfit(sizes, times, 1)[0])


def plot(found: Sheet) -> Any:
    """The sheet as two figures with logarithmic axes; the matplotlib figure."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for kind in ("services", "model"):
        left.plot(*([row[key] for row in found.users] for key in ("users", kind)), "o-", label=kind)
    left.legend()
    left.set_xlabel("users at once")
    held = [row[f"machines, {COPIES} copies"] for row in found.passages]
    right.plot([row["passages"] for row in found.passages], held, "o-", color="tab:green")
    right.set_xlabel("passages")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylabel(f"machines, {CORES} cores, {MEMORY_GB} GB")
        axes.grid(alpha=0.3)
    return figure


def command(out: Path, questions: int = 5) -> int:
    """Measure the running system, show the sheet, write capacity.json and capacity.png to `out`."""
    import matplotlib

    from .evaluate import machine
    from .show import console

    with console.status("asking"):
        slopes = measure(system.require_running(), questions)
    found = sheet(slopes)
    console.print(
        f"One question: {slopes.services_ms:.0f} ms of a core in the services, "
        f"{slopes.model_ms:.0f} ms in the language model."
    )
    console.print(f"Machines of {CORES} cores and {MEMORY_GB} GB:\n\n{found}", highlight=False)
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "slopes": asdict(slopes),
        **asdict(found),
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (out / "capacity.json").write_text(text, encoding="utf-8")
    matplotlib.use("Agg")
    plot(found).savefig(out / "capacity.png", dpi=120, metadata={"Software": None})
    return 0
