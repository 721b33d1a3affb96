"""The red test: in the notebook that a learner opens, every exercise's check fails on the stub.

Of each committed exercise notebook these are run in a real kernel, with errors allowed and against
the running system: the first cell without its questions, the cells that save themselves to
`my_services/`, and the calls of `workshop.check`. The rest is left out, because it asks the fixed
questions and swaps services; that takes minutes, and no check looks at what it computes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from workshop import course, exercises, lessons
from workshop.my_services import split_call

CHECK = re.compile(r'^workshop\.check\("(\d\d(?:\.\d)?)"\)', re.MULTILINE)
EVERY = pytest.mark.parametrize("lesson", course.load(), ids=lambda lesson: lesson.name)


def needed(notebook: Any) -> Any:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kept = [code[0]]
    lines = code[0].source.splitlines()
    code[0].source = "\n".join(line for line in lines if "fixed_answers" not in line)
    for cell in code[1:]:
        if call := CHECK.search(cell.source):
            cell.source = call[0]  # lines before it may need cells that are left out
            kept.append(cell)
        elif split_call(cell.source):
            kept.append(cell)
    return nbformat.v4.new_notebook(metadata=notebook.metadata, cells=kept)


def executed(notebook: Any, folder: Path) -> Any:
    client = nbclient.NotebookClient(
        notebook,
        timeout=60,
        kernel_name=notebook.metadata.kernelspec.name,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def text_of(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def error_of(cell: Any) -> Any:
    return next((output for output in cell.outputs if output.output_type == "error"), None)


@pytest.fixture
def attached(
    system: object,
    system_environment: dict[str, str],
    my_services: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernels of this test find the running system, and write beside the learner's files."""
    for name, value in system_environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.system
@pytest.mark.slow
@EVERY
def test_every_check_of_the_opened_notebook_is_red(
    lesson: course.Lesson, attached: None, tmp_path: Path
) -> None:
    notebook = executed(needed(nbformat.read(lesson.notebook, as_version=4)), tmp_path)
    assert error_of(notebook.cells[0]) is None, error_of(notebook.cells[0])
    seen = set()
    for cell in notebook.cells[1:]:
        if (call := CHECK.search(cell.source)) is None:
            assert error_of(cell) is None, f"{cell.id} does not save its stub: {error_of(cell)}"
            continue
        number = call[1]
        seen.add(number)
        said, error = text_of(cell), error_of(cell)
        assert error is not None, f"check({number!r}) passes on the stub:\n{said}"
        assert error.ename == "ChecksFailed", error
        shown = "\n".join(error.traceback)  # what a person sees in the place of a traceback
        assert re.search(r"\d+ of \d+ checks are red", shown)
        assert re.search(rf"not written yet: exercise {re.escape(number)}", shown)
        if "." in number:
            assert " green  " not in said, f"a check of {number} passes on the stub:\n{said}"
        else:
            assert "not run: " in said or not lesson.core, "a stub was served"
    assert seen == {lesson.number, *exercises.exercises_of(lesson)}


@pytest.mark.system
@pytest.mark.slow
def test_the_same_cells_of_a_solution_are_green(attached: None, tmp_path: Path) -> None:
    """What is red above is red because of the stub."""
    solution = lessons.solution_notebook(course.find("00"))
    for cell in executed(needed(solution), tmp_path).cells:
        assert error_of(cell) is None, cell.source
