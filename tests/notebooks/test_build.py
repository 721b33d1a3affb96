"""The committed notebooks are what the sources build, and marks that are wrong are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from workshop import course, lessons, paths
from workshop.errors import WorkshopError

LESSONS = course.load()
EVERY = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)

SOURCE = """\
# %% [markdown]
# # A lesson

# %% id="named" tags=["check"]
x = 1


# %%
def f(a, b=2):
    if a:
        # BEGIN SOLUTION 05.1: say "ja"
        b += 1
        return b
        # END SOLUTION
    return 0
"""


@EVERY
def test_the_committed_notebooks_are_current(lesson: course.Lesson) -> None:
    difference = lessons.compare(lesson)
    assert not difference, "run `workshop build-lessons`:\n" + "\n".join(difference[:60])


def test_every_file_belongs_to_a_listed_lesson() -> None:
    assert lessons.stale(LESSONS) == []


@EVERY
def test_two_builds_are_byte_identical(lesson: course.Lesson) -> None:
    for build in (lessons.exercise_notebook, lessons.solution_notebook):
        assert lessons.to_bytes(build(lesson)) == lessons.to_bytes(build(lesson))


@EVERY
def test_an_exercise_has_no_outputs_no_marks_and_the_kernel_of_everybody(
    lesson: course.Lesson,
) -> None:
    raw = json.loads(lesson.notebook.read_text())
    assert raw["metadata"] == lessons.METADATA
    assert raw["nbformat"] == 4
    text = lesson.notebook.read_text()
    assert "SOLUTION" not in text
    for cell in raw["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@EVERY
def test_the_lesson_keeps_its_frame(lesson: course.Lesson) -> None:
    notebook = lessons.solution_notebook(lesson)
    first = notebook.cells[0].source
    assert first.startswith(f"# {lesson.number} ")
    assert f"| {lesson.level} | {lesson.minutes} |" in first
    assert "**Goal.**" in first
    text = "\n".join(cell.source for cell in notebook.cells)
    for part in ("**Predict.**", "<details>", "workshop.same(", "workshop.bill(", "**Next:**"):
        assert part in text, f"{lesson.name} has no {part}"
    assert re.search(r"plt\.show\(\)|\.plot\(\)|\.trace\(", text), "no figure"


@EVERY
def test_cells_are_few_and_short(lesson: course.Lesson) -> None:
    """A cell that holds an exercise's solution may be a little longer than the others."""
    solved = lessons.solution_notebook(lesson).cells
    stubs = lessons.exercise_notebook(lesson).cells
    assert 25 <= len(solved) <= 40
    sizes = {
        cell.id: (sum(bool(line.strip()) for line in cell.source.splitlines()), limit)
        for cell, stub in zip(solved, stubs, strict=True)
        if cell.cell_type == "code"
        for limit in [12 if cell.source == stub.source else 15]
    }
    assert {name: size for name, (size, limit) in sizes.items() if size > limit} == {}


@EVERY
def test_exercises_are_few(lesson: course.Lesson) -> None:
    said = re.findall(r"BEGIN SOLUTION (\d\d\.\d)", lesson.source.read_text())
    assert 1 <= len(set(said)) <= 3


def test_a_solution_is_cut_and_keeps_signature_and_indentation() -> None:
    cut = lessons.cut(SOURCE, "05_x.py", "05", solved=False)
    assert 'def f(a, b=2):\n    if a:\n        raise NotImplementedError("exercise 05.1: ' in cut
    assert "b += 1" not in cut
    assert "    return 0" in cut
    namespace: dict[str, object] = {}
    exec(compile(cut, "cut", "exec"), namespace)
    with pytest.raises(NotImplementedError, match=r'exercise 05\.1: say "ja"'):
        namespace["f"](1)  # type: ignore[operator]


def test_the_solved_source_has_the_solution_and_no_mark() -> None:
    solved = lessons.cut(SOURCE, "05_x.py", "05", solved=True)
    assert "        b += 1\n        return b\n    return 0" in solved
    assert "SOLUTION" not in solved


def test_ids_are_given_or_follow_from_the_place() -> None:
    cells = lessons.to_notebook(lessons.cut(SOURCE, "x.py", "05", solved=True), "05").cells
    assert [cell.id for cell in cells] == ["lesson-05-00", "named", "lesson-05-02"]
    assert [cell.metadata for cell in cells] == [{}, {"tags": ["check"]}, {}]


BEGIN, END = "# BEGIN SOLUTION 05.1: do it", "# END SOLUTION"


@pytest.mark.parametrize(
    ("lines", "line", "says"),
    [
        ([BEGIN, "x = 1"], 1, "never closed"),
        (["x = 1", END], 2, "END SOLUTION without"),
        ([BEGIN, "x = 1", BEGIN, END, END], 3, "inside of the one opened in line 1"),
        ([BEGIN, "# %%", "x = 1", END], 2, "inside of the solution opened in line 1"),
        (["# BEGIN SOLUTION", END], 1, "does not say what to do"),
        (["# BEGIN SOLUTION 04.1: other", END], 1, "does not say what to do"),
        (["x = 1  # BEGIN SOLUTION 05.1: it", END], 1, "not understood"),
        ([BEGIN, "x = 1", "#END SOLUTION"], 3, "not understood"),
    ],
)
@pytest.mark.parametrize("solved", [True, False])
def test_a_wrong_mark_names_file_and_line(
    lines: list[str], line: int, says: str, solved: bool
) -> None:
    with pytest.raises(WorkshopError) as error:
        lessons.cut("\n".join(lines), "05_x.py", "05", solved=solved)
    assert f"lessons/05_x.py, line {line}:" in error.value.what
    assert says in error.value.what


def test_a_notebook_that_differs_is_shown(tmp_path: Path) -> None:
    lesson = LESSONS[0]
    built = lessons.to_bytes(lessons.exercise_notebook(lesson))
    other = tmp_path / "other.ipynb"
    other.write_bytes(built.replace(b"Goal", b"Gaol", 1))
    difference = lessons._diff(other, built)
    assert any(line.startswith("-") and "Gaol" in line for line in difference)
    assert any(line.startswith("+") and "Goal" in line for line in difference)
    assert lessons._diff(tmp_path / "none.ipynb", built) == ["none.ipynb is missing"]


GOOD = """
[[lesson]]
number = "01"
slug = "one"
title = "One"
level = "beginner"
minutes = 30
goals = ["see"]
services = ["monolith"]
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("minutes = 30", "minutes = 46", "lesson 01, minutes"),
        ('level = "beginner"', 'level = "easy"', "lesson 01, level"),
        ('services = ["monolith"]', 'services = ["reranker"]', "no service named reranker"),
        ('goals = ["see"]', 'goals = ["see"]\nprerequisites = ["00"]', "prerequisite 00"),
        ('slug = "one"', 'slug = "one"\nslides = 3', "lesson 01, slides"),
        ("minutes = 30", "minutes =", "not valid TOML"),
        ("minutes = 30", "minutes = 30\n" + GOOD, "not valid TOML"),
    ],
)
def test_a_wrong_course_file_is_explained(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "course.toml"
    path.write_text(GOOD)
    assert [lesson.name for lesson in course.load(path)] == ["01_one"]
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(WorkshopError) as error:
        course.load(path)
    assert says in error.value.what
    assert error.value.what.startswith("course.toml")


def test_lessons_are_in_order_and_found_by_number_and_name() -> None:
    assert course.find("5").name == "05_hybrid_search"
    assert course.find("05_hybrid_search").number == "05"
    with pytest.raises(WorkshopError, match="no lesson 77"):
        course.find("77")


def test_no_folder_of_lessons_is_left_out() -> None:
    folders = {"lessons", "notebooks", "solutions"}
    assert {name for name in folders if not (paths.ROOT / name).is_dir()} == set()


def test_a_solution_prints_the_addresses_that_a_learner_sees() -> None:
    import nbformat

    said = "here http://127.0.0.1:9706, there http://127.0.0.1:9999\n"
    output = nbformat.v4.new_output("stream", text=said)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    lessons.at_default_ports(notebook, {"hybrid_search": "http://127.0.0.1:9706"})
    assert output.text == "here http://127.0.0.1:8006, there http://127.0.0.1:9999\n"
