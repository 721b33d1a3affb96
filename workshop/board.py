"""The learner's progress: what is green, what comes next, and catching up."""

from __future__ import annotations

import html
import json
import time
from dataclasses import dataclass
from pathlib import Path

from . import course, exercises, lessons, my_services, paths
from .course import Lesson
from .errors import WorkshopError

_START = "start"
"""In the record, the lesson that the learner last caught up to."""


def _record() -> Path:
    return paths.home() / "progress.json"


def passed() -> dict[str, str]:
    """{exercise (`05.1`) or whole lesson (`05`): when it was green first}, and `_START`."""
    try:
        return {str(k): str(v) for k, v in json.loads(_record().read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def remember(*names: str) -> None:
    """Record what is green now; the first time counts."""
    if not names:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    _write({**dict.fromkeys(names, now), **passed()})


def _write(record: dict[str, str]) -> None:
    paths.replace_file(_record(), json.dumps(record, indent=1, sort_keys=True))


@dataclass(frozen=True, slots=True)
class Row:
    lesson: Lesson
    green: tuple[str, ...]
    open: tuple[str, ...]
    done: bool


@dataclass(frozen=True, slots=True)
class Board:
    """Lessons with their exercises, and the next step. Shows itself in a notebook."""

    rows: tuple[Row, ...]
    start: str = ""

    @property
    def next_step(self) -> str:
        # Who caught up to a lesson goes on from there; what was passed over comes last.
        for row in sorted(self.rows, key=lambda row: row.lesson.number < self.start):
            if not row.done:
                where = f"notebooks/{row.lesson.notebook.name}"
                if row.open:
                    return f"exercise {row.open[0]} in {where}"
                return f'workshop.check("{row.lesson.number}") in {where}'
        return "every lesson is green"

    def __str__(self) -> str:
        lines = [
            f"{_sign(row)} {row.lesson.number}  {row.lesson.title}  "
            f"({len(row.green)} of {len(row.green) + len(row.open)} exercises, "
            f"{row.lesson.minutes} min)"
            for row in self.rows
        ]
        return "\n".join([*lines, f"Next: {self.next_step}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_sign(row)}</td><td>{row.lesson.number}</td>"
            f"<td>{html.escape(row.lesson.title)}</td>"
            f"<td><progress value='{len(row.green)}' max='{len(row.green) + len(row.open) or 1}'>"
            f"</progress> {len(row.green)} of {len(row.green) + len(row.open)}</td>"
            f"<td>{row.lesson.minutes} min</td></tr>"
            for row in self.rows
        )
        return (
            "<table><thead><tr><th></th><th></th><th>lesson</th><th>exercises</th><th>time</th>"
            f"</tr></thead><tbody>{rows}</tbody></table>"
            f"<p>Next: {html.escape(self.next_step)}</p>"
        )


def _sign(row: Row) -> str:
    return "[x]" if row.done else "[ ]"


def board() -> Board:
    done = passed()
    rows = []
    for lesson in course.load():
        numbers = exercises.exercises_of(lesson)
        rows.append(
            Row(
                lesson,
                tuple(n for n in numbers if n in done),
                tuple(n for n in numbers if n not in done),
                lesson.number in done,
            )
        )
    return Board(tuple(rows), done.get(_START, ""))


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """`aside` is where the learner's files are now, None if there were none."""

    lesson: Lesson
    aside: Path | None
    files: tuple[str, ...]


def catch_up(number: str) -> CaughtUp:
    """Bring `my_services/` to the start of a lesson: the solutions' files of those before it.

    What was there is renamed, never deleted. A running system is left as it is.
    """
    known = course.load()
    lesson = course.find(number, known)
    texts: dict[tuple[str, str], str] = {}
    for earlier in known[: known.index(lesson)]:
        texts |= lessons.saved_files(lessons.solution_notebook(earlier))
    try:
        aside = my_services.set_aside()
        for (name, file), text in texts.items():
            my_services.write(name, file, text)
    except OSError as error:
        raise WorkshopError(
            f"my_services could not be written: {error.strerror}.", "Check the folder's owner."
        ) from error
    _write({**passed(), _START: lesson.number})
    files = tuple(my_services.label(name, file) for name, file in texts)
    return CaughtUp(lesson, aside, files)
