"""`workshop build-lessons`: from `lessons/NN_slug.py` to the exercise and the executed solution.

A source is a Python file in jupytext's percent format. A region

    # BEGIN SOLUTION 05.1: add up what each list gives a passage
    ...
    # END SOLUTION

is in the solution as it stands; in the exercise, `raise NotImplementedError("exercise 05.1: …")`
takes its place with the same indentation. Cell ids are `id="…"` in a cell's header, or the
lesson's number and the cell's position. The same source gives the same bytes.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from . import catalogue, course, paths
from .course import Lesson
from .errors import WorkshopError

CELL_TIMEOUT = 60
"""Seconds that one cell of a solution may take."""
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}

_LOCAL = re.compile(r"http://127\.0\.0\.1:\d+")
_BEGIN = re.compile(r"^(\s*)# BEGIN SOLUTION(.*)$")
_END = re.compile(r"^\s*# END SOLUTION\s*$")
_WHAT = re.compile(r"^ (\d\d\.\d): (\S.*)$")
_CELL = re.compile(r"^# %%(\s|$)")

console = Console(highlight=False)


def command(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="numbers of lessons; default: all")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="only compare with what is there; 1 if it differs")
    ] = False,
    execute: Annotated[
        bool, typer.Option(help="run the solutions against the running system")
    ] = True,
) -> int:
    """Write notebooks/ and solutions/ from lessons/."""
    known = course.load()
    chosen = [course.find(number, known) for number in lessons] if lessons else known
    if check:
        differences = [line for lesson in chosen for line in compare(lesson)]
        if not lessons:
            differences += stale(known)
        for line in differences:
            style = {"+": "green", "-": "red"}.get(line[:1], "none")
            console.print(Text(line, style=style), soft_wrap=True)
        if differences:
            console.print("Not current. Run `workshop build-lessons` and commit the result.")
        return 1 if differences else 0
    if execute:
        from . import fixed, images, system

        here = system.require_running()
        with console.status("asking the fixed questions, so that every lesson finds them answered"):
            fixed.ask(here.url("gateway"))
    for lesson in chosen:
        write(lesson.notebook, exercise_notebook(lesson))
        console.print(f"notebooks/{lesson.notebook.name}")
        if execute and (why := images.missing(lesson)):
            console.print(why)
        elif execute:
            started = time.monotonic()
            with console.status(f"running {lesson.name}"):
                images.prepare(lesson)
                write(lesson.solution, at_default_ports(run(lesson), here.urls))
            seconds = time.monotonic() - started
            console.print(f"solutions/{lesson.solution.name}  ran in {seconds:.0f} s")
    return 0


# -- from the source ----------------------------------------------------------------------


def read_source(lesson: Lesson) -> str:
    try:
        return lesson.source.read_text(encoding="utf-8")
    except OSError as error:
        raise WorkshopError(
            f"lessons/{lesson.source.name} could not be read: {error.strerror}.",
            "course.toml lists it; a lesson is listed once its source is there.",
        ) from error


def cut(text: str, name: str, number: str, *, solved: bool) -> str:
    """The source without its marks: with the solutions, or with what the learner starts from.

    Raises `WorkshopError` with file and line for a mark that is unbalanced, nested, open at the
    end of its cell, or that does not say which exercise it belongs to.
    """
    lines: list[str] = []
    opened = 0
    for position, line in enumerate(text.splitlines(), 1):
        where = f"lessons/{name}, line {position}"
        if _CELL.match(line) and opened:
            raise WorkshopError(
                f"{where}: this cell starts inside of the solution opened in line {opened}.",
                "Close it with `# END SOLUTION` in its own cell.",
            )
        if begin := _BEGIN.match(line):
            if opened:
                raise WorkshopError(
                    f"{where}: BEGIN SOLUTION inside of the one opened in line {opened}.",
                    "Close that one first; solutions do not nest.",
                )
            what = _WHAT.match(begin[2].rstrip())
            if what is None or not what[1].startswith(f"{number}."):
                raise WorkshopError(
                    f"{where}: BEGIN SOLUTION does not say what to do.",
                    f"Write `# BEGIN SOLUTION {number}.1: what the learner writes here`.",
                )
            opened = position
            if not solved:
                said = json.dumps(f"exercise {what[1]}: {what[2]}", ensure_ascii=False)
                lines.append(f"{begin[1]}raise NotImplementedError({said})")
        elif _END.match(line):
            if not opened:
                raise WorkshopError(
                    f"{where}: END SOLUTION without a BEGIN SOLUTION.", "Remove it, or open one."
                )
            opened = 0
        elif "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            raise WorkshopError(
                f"{where}: this mark is not understood.",
                "A mark is a comment on a line of its own: `# BEGIN SOLUTION NN.M: what to do`.",
            )
        elif solved or not opened:
            lines.append(line)
    if opened:
        raise WorkshopError(
            f"lessons/{name}, line {opened}: BEGIN SOLUTION is never closed.",
            "Close it with `# END SOLUTION`.",
        )
    return "\n".join(lines) + "\n"


def to_notebook(text: str, number: str) -> Any:
    """A notebook of a percent-format source: stable ids, tags as its only cell metadata."""
    import jupytext
    import nbformat

    parsed = jupytext.reads(text, fmt="py:percent")
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    for position, cell in enumerate(parsed.cells):
        tags = cell.metadata.get("tags")
        make = (
            nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        )
        notebook.cells.append(
            make(
                cell.source,
                id=str(cell.metadata.get("id") or f"lesson-{number}-{position:02d}"),
                metadata={"tags": tags} if tags else {},
            )
        )
    ids = [cell.id for cell in notebook.cells]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise WorkshopError(f"Lesson {number}: two cells have the id {twice}.", "Rename one.")
    return notebook


def exercise_notebook(lesson: Lesson) -> Any:
    """What the learner opens: solutions cut, no outputs."""
    text = cut(read_source(lesson), lesson.source.name, lesson.number, solved=False)
    return to_notebook(text, lesson.number)


def solution_notebook(lesson: Lesson) -> Any:
    """The solution as written, not executed."""
    text = cut(read_source(lesson), lesson.source.name, lesson.number, solved=True)
    return to_notebook(text, lesson.number)


def saved_files(notebook: Any) -> dict[tuple[str, str], str]:
    """{(service, file): text} of the cells that save themselves to `my_services/`."""
    from .my_services import split_call

    found = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and (call := split_call(cell.source)):
            found[call[0], call[1]] = call[2]
    return found


def to_bytes(notebook: Any) -> bytes:
    import nbformat

    nbformat.validate(notebook)
    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


def write(path: Path, notebook: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_bytes(notebook))


# -- running ------------------------------------------------------------------------------


def run(lesson: Lesson, seconds: dict[str, float] | None = None) -> Any:
    """The solution, executed in a fresh kernel against the running system.

    Raises `WorkshopError` with the cell and its error. What the notebook writes goes to a
    `my_services` folder of its own. `seconds` gets {id of a code cell: how long it took}.
    """
    import nbclient
    from nbclient.exceptions import CellTimeoutError

    notebook = solution_notebook(lesson)
    lesson.solution.parent.mkdir(exist_ok=True)
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # it warns of a transport that stays on loopback
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(lesson.solution.parent)}},
    )
    if seconds is not None:
        started = 0.0

        def begin(cell: Any, cell_index: int) -> None:
            nonlocal started
            started = time.monotonic()

        def end(cell: Any, cell_index: int, execute_reply: Any) -> None:
            seconds[cell.id] = time.monotonic() - started

        client.on_cell_execute = begin
        client.on_cell_executed = end
    with apart_from_the_learner():
        try:
            client.execute()
        except CellTimeoutError as error:
            raise WorkshopError(
                f"{lesson.name}: a cell ran longer than {CELL_TIMEOUT} s.", str(error)[:400]
            ) from error
        except nbclient.exceptions.CellExecutionError as error:
            raise WorkshopError(
                f"{lesson.name}: a cell of the solution failed: {error.ename}: {error.evalue}",
                _failed_source(notebook),
            ) from error
    notebook.metadata = METADATA
    return notebook


def at_default_ports(notebook: Any, urls: Mapping[str, str]) -> Any:
    """`notebook`, with the addresses that it printed as they are in a learner's system.

    `urls` are those of the system that it ran against, by the name of the process.
    """
    ports = catalogue.ports(catalogue.DEFAULT_PORT_BASE, {})
    usual = {url: f"http://127.0.0.1:{ports[name]}" for name, url in urls.items() if name in ports}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _LOCAL.sub(lambda found: usual.get(found[0], found[0]), output.text)
    return notebook


def _failed_source(notebook: Any) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "code" and any(o.output_type == "error" for o in cell.outputs):
            return f"The cell {cell.id}:\n{cell.source}"
    return ""


@contextmanager
def apart_from_the_learner() -> Iterator[Path]:
    """`WORKSHOP_MY_SERVICES` is a temporary folder while this lasts."""
    before = os.environ.get("WORKSHOP_MY_SERVICES")
    with tempfile.TemporaryDirectory(prefix="workshop-lessons-") as temporary:
        os.environ["WORKSHOP_MY_SERVICES"] = str(Path(temporary) / "my_services")
        try:
            yield Path(temporary)
        finally:
            os.environ.pop("WORKSHOP_MY_SERVICES")
            if before is not None:
                os.environ["WORKSHOP_MY_SERVICES"] = before


# -- checking -----------------------------------------------------------------------------


def compare(lesson: Lesson) -> list[str]:
    """A unified diff between the committed notebooks and what the source builds; [] if equal.

    Exercises are compared byte for byte. Of a solution the outputs and counts are left out:
    they come from a run, and nbval compares them.
    """
    return [
        *_diff(lesson.notebook, to_bytes(exercise_notebook(lesson))),
        *_diff(lesson.solution, to_bytes(solution_notebook(lesson)), outputs=False),
    ]


def _diff(path: Path, built: bytes, *, outputs: bool = True) -> list[str]:
    name = str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else path.name
    try:
        committed = path.read_bytes()
    except OSError:
        return [f"{name} is missing"]
    if not outputs:
        try:
            committed = to_bytes(_without_outputs(committed))
        except (ValueError, KeyError, AttributeError) as error:
            return [f"{name} is not a notebook: {error}"]
    if committed == built:
        return []
    old, new = committed.decode("utf-8", "replace"), built.decode()
    return list(
        difflib.unified_diff(
            old.splitlines(), new.splitlines(), name, f"{name} (built)", lineterm="", n=1
        )
    ) or [f"{name} differs in its line ends"]


def _without_outputs(raw: bytes) -> Any:
    import nbformat

    notebook = nbformat.reads(raw.decode(), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    return notebook


def stale(lessons: list[Lesson]) -> list[str]:
    """Files in lessons/, notebooks/ and solutions/ that belong to no listed lesson."""
    names = {lesson.name for lesson in lessons}
    return [
        f"{folder}/{path.name} is not a lesson of course.toml"
        for folder, pattern in (
            ("lessons", "*.py"),
            ("notebooks", "*.ipynb"),
            ("solutions", "*.ipynb"),
        )
        for path in sorted((paths.ROOT / folder).glob(pattern))
        if path.stem not in names
    ]
