"""What a lesson's notebook uses, as `import workshop`.

    here = workshop.start()                  # attach to the running system, or start it
    answer = here.ask("What is RRF?")        # through the gateway; here.trace(answer) draws it
    workshop.save_cell("NAME", "core.py")    # this cell becomes my_services/NAME/core.py
    workshop.check("05.1")                   # one exercise; check("05") adds the contract
    with workshop.serve("NAME") as url: ...  # my_services/NAME alone, on a free port
    workshop.swap("NAME")                    # ... in the running system; restore("NAME")
    workshop.same(before, after)             # two rounds of workshop.fixed_answers()
    workshop.bill("NAME")                    # what the split costs, measured now
    with workshop.kill("NAME"): ...          # gone while the block lasts; see workshop/faults.py
    workshop.scale("NAME", 2)                # two copies; scale("NAME", 1): as it was
    workshop.load("NAME", users=8, seconds=3)  # what users get, a row for each call

Adding the seam of another service
----------------------------------
1. Choose the 10 to 60 lines that carry the lesson, and make them a function in the service's
   `domain.py`.
2. Let `create_app` take it: `def create_app(settings, *, fuse=reciprocal_rank_fusion)`. The API
   calls what it was given and nothing else; the default keeps the service as it was.
3. In `course.toml`, under the lesson: `[lesson.core.NAME]` with `"core.py" = { fuse =
   "reciprocal_rank_fusion" }` (the learner's file, create_app's argument, the learner's
   function), and `[lesson.probe.NAME]` with the request that `bill` repeats.
4. In the lesson's source, a cell that begins with `workshop.save_cell("NAME", "core.py")` and holds
   the solution between marks; checks in `lessons/checks/NN_slug.py`; at least three wrong
   answers for each exercise in `lessons/wrong/`, named `NN_M_what_is_wrong.py`.
5. `workshop build-lessons NN`, then `pytest tests/notebooks`.
"""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import board, client, course, exercises, fixed, paths, replicas, swapping, sync, system
from .bills import Bill, measure_bill
from .errors import WorkshopError
from .fixed import FixedAnswer
from .judge import Judged, judged
from .load_run import Call, load
from .my_services import folder as my_services_folder
from .my_services import label, save_cell

__all__ = [
    "Answer",
    "Call",
    "Judged",
    "Running",
    "bill",
    "catch_up",
    "check",
    "fixed_answers",
    "judged",
    "label",
    "load",
    "progress",
    "restore",
    "same",
    "save_cell",
    "scale",
    "serve",
    "start",
    "swap",
]

_STATUS_COLOUR = {"ok": "tab:blue", "degraded": "tab:orange", "failed": "tab:red"}
_STOP_PATIENCE = 20.0

# The first use of matplotlib on a machine says on stderr that it lists the fonts.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the gateway; `document` is the whole of it. Shows itself in a notebook."""

    document: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.document["answer"])

    @property
    def citations(self) -> list[dict[str, Any]]:
        return list(self.document["citations"])

    @property
    def passages(self) -> list[str]:
        """Ids of the passages that the answer could draw on, in order."""
        return [p for source in self.document["sources"] for p in source["passages"]]

    @property
    def timings(self) -> list[dict[str, Any]]:
        """The stages: `stage`, `start_ms`, `ms`, `status`."""
        return list(self.document["timings"])

    @property
    def degraded(self) -> list[str]:
        return list(self.document["degraded"])

    def __repr__(self) -> str:
        lines = [self.text]
        lines += [f"  [{c['number']}] {c['title']}: {c['id']}" for c in self.citations]
        if self.degraded:
            lines.append(f"  degraded: {', '.join(self.degraded)} did not take part")
        return "\n".join(lines)


class Asked(NamedTuple):
    """A question of `Running.asking`: when it was asked, and what its answer lacked, or ""."""

    at: float
    lost: str


class Running:
    """The running system, as a notebook uses it."""

    def __init__(self, here: system.System) -> None:
        self._here = here

    def __repr__(self) -> str:
        return f"the workshop at {self.url('gateway')}"

    def url(self, name: str) -> str:
        """Base URL of a service, such as `http://127.0.0.1:8006`."""
        return self._here.url(name)

    def ask(self, question: str, *, language: str | None = None) -> Answer:
        """Ask through the gateway, as any client does."""
        return Answer(sync.wait(client.answer(self.url("gateway"), question, language=language)))

    def search(self, query: str, *, top_k: int = 5, rerank: bool = False) -> list[dict[str, Any]]:
        """The ranked passages: `id`, `score`, `passage`, `provenance`."""
        found = client.search(self.url("gateway"), query, top_k=top_k, rerank=rerank)
        return list(sync.wait(found)["hits"])

    def trace(self, answer: Answer) -> None:
        """Draw the stages of an answer over time, as a waterfall."""
        from matplotlib import pyplot as plt

        timings = answer.timings
        figure, axes = plt.subplots(figsize=(9, 0.6 + 0.35 * len(timings)))
        for row, stage in enumerate(timings):
            colour = _STATUS_COLOUR.get(stage["status"], "tab:gray")
            axes.barh(row, stage["ms"], left=stage["start_ms"], color=colour)
            text = f" {stage['ms']:.0f} ms" + (
                "" if stage["status"] == "ok" else f" {stage['status']}"
            )
            axes.text(stage["start_ms"] + stage["ms"], row, text, va="center", fontsize=8)
        axes.set_yticks(range(len(timings)), [stage["stage"] for stage in timings])
        axes.invert_yaxis()
        axes.set_xlabel("ms since the question arrived")
        axes.margins(x=0.12)
        figure.tight_layout()
        plt.show()

    def stop(self, name: str) -> None:
        """Drain and stop one service, and wait until it is gone."""
        self._here.stop(name)
        end = time.monotonic() + _STOP_PATIENCE
        while self._here.refresh().processes[name]["state"] != "stopped":
            if time.monotonic() > end:
                raise WorkshopError(f"{name} does not stop.", f"See `workshop logs {name}`.")
            time.sleep(0.05)

    def start(self, name: str) -> None:
        """Start one service again, and wait until it is ready."""
        self._here.start(name)
        self._here.wait(name)

    def restart(self, name: str) -> None:
        self.stop(name)
        self.start(name)

    def pid(self, name: str) -> int:
        return int(self._here.refresh().pids[name])

    def cpu(self, name: str) -> float:
        """CPU seconds that a process and its children have used so far, on all cores."""
        from .capacity import cpu_seconds

        return cpu_seconds([self.pid(name)])

    def copies(self, name: str) -> list[dict[str, Any]]:
        """Of a service with copies, each one's `url`, `pid`, `up`, `calls` answered, `ended`."""
        return replicas.replicas_of(self.url(name))

    @contextmanager
    def asking(self) -> Iterator[list[Asked]]:
        """Ask the fixed questions, over and over, twenty a second at most, until the block ends."""
        questions = [row["question"] for row in fixed.fixed_questions()]
        asked: list[Asked] = []
        ended = threading.Event()

        def ask() -> None:
            for question in itertools.cycle(questions):
                asked.append(self._lost(question))
                if ended.wait(0.05):
                    return

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield asked
        finally:
            ended.set()
            thread.join()

    def _lost(self, question: str) -> Asked:
        at = time.monotonic()
        try:
            degraded = self.ask(question).degraded
        except WorkshopError as error:
            return Asked(at, f"failed: {error.what}")
        return Asked(at, f"degraded: {', '.join(degraded)}" if degraded else "")

    def memory(self, name: str) -> int:
        """Bytes of a process, each page that it shares divided by its sharers (PSS)."""
        from .measure import proportional_memory

        return proportional_memory([self.pid(name)])


def start() -> Running:
    """Attach to the running system; if there is none, start it and show how that goes."""
    here = system.running()
    if here is None:
        command = [sys.executable, "-m", "workshop.cli", "up"]
        with subprocess.Popen(
            command,
            cwd=paths.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            lines = []
            for line in process.stdout or ():
                lines.append(line.rstrip())
                print(lines[-1], flush=True)
        if process.returncode:
            raise WorkshopError(
                "The workshop did not start: " + " ".join(lines[-2:]), "Run `workshop doctor`."
            )
        here = system.require_running()
    found = Running(here)
    print(f"Running: {found}")
    return found


def serve(name: str, **settings: object) -> swapping.Served:
    """Run `my_services/NAME` alone on a free port: `with workshop.serve("NAME") as url:`.

    It calls the other services of the running system. `settings` are those of the service's
    `settings.py`, where they should differ. Without `with`, call `.stop()`.
    """
    return swapping.Served(name, **settings)


def swap(name: str) -> None:
    """Put `my_services/NAME` into the running system, in the reference's place.

    If it does not start, hangs or breaks its contract, the reference comes back by itself.
    """
    swapping.swap(name)
    print(f"{name}: yours answers now")


def restore(name: str) -> None:
    """Bring the reference back."""
    swapping.restore(name)
    print(f"{name}: the reference answers again")


class ChecksFailed(WorkshopError):
    """Some checks are red. They have been printed."""


def check(number: str) -> None:
    """Run an exercise's checks (`"05.1"`), or a whole lesson's with its contract (`"05"`).

    Prints a line a check, records what is green, and raises `ChecksFailed` if anything is red.
    """
    lesson = course.find(number.split(".")[0])
    exercise = number if "." in number else None
    results = exercises.run_apart(lesson, exercise)
    print(exercises.shown(results))
    board.remember(*_green_exercises(results))
    if exercise is None:
        results += _contracts(lesson, all(result.green for result in results))
    red = [result for result in results if not result.green]
    print(f"{number}: {len(results) - len(red)} of {len(results)} green")
    if red:
        raise ChecksFailed(f"{len(red)} of {len(results)} checks are red.", f"{red[0].message}")
    if exercise is None:
        board.remember(lesson.number)


def _green_exercises(results: Sequence[exercises.Result]) -> list[str]:
    parts = sorted({result.part for result in results})
    return [p for p in parts if all(r.green for r in results if r.part == p)]


def _contracts(lesson: course.Lesson, exercises_green: bool) -> list[exercises.Result]:
    """The contract of each service that the lesson's exercises make, on the learner's own."""
    found: list[exercises.Result] = []
    for name in lesson.core:
        if not exercises_green:
            print(f"contract  not run: {name} is served when the exercises are green")
            continue
        system.require_running()
        with serve(name) as url:
            results = exercises.run_contract(name, url)
        print(exercises.shown(results))
        found += results
    return found


def fixed_answers(first: int = 1, last: int = fixed.COUNT) -> list[FixedAnswer]:
    """Ask the fixed questions through the gateway: all twenty, or those from `first` to `last`.

    The first time, the language model writes each answer, which takes seconds. After that
    generation remembers them, word for word, until it is restarted.
    """
    here = system.require_running()

    def show(done: int, total: int) -> None:
        print(f"\r{done} of {total} answered", end="" if done < total else "\n", flush=True)

    return fixed.ask(here.url("gateway"), first, last, show)


def same(before: Sequence[FixedAnswer], after: Sequence[FixedAnswer]) -> None:
    """Passages, order and text are equal; raises AssertionError that names the first difference."""
    found = fixed.difference(before, after)
    assert not found, found
    assert before, "there is nothing to compare: ask workshop.fixed_answers() before and after"
    print(f"{len(after)} of {len(before)} equal")


def scale(name: str, count: int, *, pick: bool = False, **settings: object) -> None:
    """Run `count` copies of a service that owns no data, behind its own address.

    With `pick` the balancer uses `my_services/scale/pick.py`. `settings` are the copies' own, by
    the names of their `settings.py`. `scale(NAME, 1)` brings the service back as it was.
    """
    file = my_services_folder() / "scale" / "pick.py" if pick else None
    replicas.scale(name, count, pick=file, **settings)


def bill(*names: str) -> Bill:
    """What these services cost as services: milliseconds, memory, bytes, measured now."""
    return measure_bill(system.require_running(), names)


def progress() -> board.Board:
    """The board: lessons, checks passed, next step."""
    return board.board()


def catch_up(number: str) -> None:
    """Bring `my_services/` to the start of a lesson; your files are renamed, never deleted."""
    print(describe(board.catch_up(number)))


def describe(done: board.CaughtUp) -> str:
    lines = []
    if done.aside is not None:
        lines.append(f"Your files are kept in {done.aside.name}.")
    lines += [f"{file}: from the solution" for file in done.files]
    return "\n".join([*lines, f"Ready for lesson {done.lesson.number}: {done.lesson.title}"])
