"""The executed solutions: strict nbval against the running system, and guards around it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from workshop import course, fixed, images, lessons

LESSONS = course.load()
ALONE = ("14", "15")
"""They load the machine to its limits, and say what they found."""
CACHE_LOST = "09"
"""This lesson puts another generation in the place of the one that remembers its answers: to write
them again takes a minute, so it comes after all others."""
EVERY = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
OPT_OUT = "nbval-ignore-output"
ALLOWED = {OPT_OUT, "check", "raises-exception"}
SANITIZE = Path(__file__).with_name("sanitize.cfg")


def cells(lesson: course.Lesson) -> list[dict[str, Any]]:
    raw = json.loads(lesson.solution.read_text())
    return [cell for cell in raw["cells"] if cell["cell_type"] == "code"]


def tags(cell: dict[str, Any]) -> set[str]:
    return set(cell["metadata"].get("tags", ()))


@EVERY
def test_every_cell_was_executed_in_order(lesson: course.Lesson) -> None:
    """nbval compares nothing where there is no count."""
    counts = [cell["execution_count"] for cell in cells(lesson)]
    assert counts == list(range(1, len(counts) + 1))


@EVERY
def test_no_cell_wrote_to_stderr_or_failed(lesson: course.Lesson) -> None:
    for cell in cells(lesson):
        for output in cell["outputs"]:
            assert output.get("name") != "stderr", cell["source"]
            if output["output_type"] == "error":
                assert "raises-exception" in tags(cell), cell["source"]


@EVERY
def test_few_cells_opt_out_and_a_check_follows_each(lesson: course.Lesson) -> None:
    found = cells(lesson)
    ignored = [number for number, cell in enumerate(found) if OPT_OUT in tags(cell)]
    assert len(ignored) <= 0.2 * len(found), f"{len(ignored)} of {len(found)}"
    for number in ignored:
        after = found[number + 1]
        assert "check" in tags(after), f"no check after: {found[number]['source']}"
        assert OPT_OUT not in tags(after)
        assert "assert" in "".join(after["source"])


@EVERY
def test_no_tag_and_no_comment_takes_a_cell_out_of_the_comparison(lesson: course.Lesson) -> None:
    for cell in cells(lesson):
        assert tags(cell) <= ALLOWED, cell["source"]
        assert "NBVAL" not in "".join(cell["source"])


@EVERY
def test_the_kernel_is_named_and_no_time_of_the_run_is_kept(lesson: course.Lesson) -> None:
    raw = json.loads(lesson.solution.read_text())
    assert raw["metadata"] == lessons.METADATA
    assert not any("execution" in cell["metadata"] for cell in raw["cells"])


def test_each_sanitize_rule_has_an_example_and_is_needed_by_a_solution() -> None:
    text = SANITIZE.read_text()
    rules = re.findall(r"^regex: (.*)$\n^replace: (.*)$", text, re.MULTILINE)
    examples = re.findall(r"^# example: (.*)$", text, re.MULTILINE)
    assert rules
    assert len(rules) == len(examples)
    outputs = "\n".join(json.dumps(c["outputs"]) for lesson in LESSONS for c in cells(lesson))
    for (pattern, replacement), example in zip(rules, examples, strict=True):
        assert re.sub(pattern, replacement, example) != example
        assert re.search(pattern, outputs), f"no solution needs {pattern}"
        assert not re.search(pattern, "95 of 100, 0.82, /v1/search"), "too wide"


def durations(said: str) -> str:
    """A line a notebook: its seconds, and its slowest cell, from what pytest printed."""
    found: dict[str, list[float]] = {}
    for seconds, name in re.findall(
        r"^([\d.]+)s \w+ +\S*?(\w+)\.ipynb::Cell \d+", said, re.MULTILINE
    ):
        found.setdefault(name, []).append(float(seconds))
    lines = [f"{n}: {sum(s):.1f} s, slowest cell {max(s):.1f} s" for n, s in found.items()]
    return "\n".join([*lines, f"all: {sum(sum(s) for s in found.values()):.1f} s"])


def test_durations_are_summed_for_each_notebook() -> None:
    said = (
        "2.50s call     solutions/05_x.ipynb::Cell 3\n1.00s setup    solutions/05_x.ipynb::Cell 0"
    )
    assert durations(said) == "05_x: 3.5 s, slowest cell 2.5 s\nall: 3.5 s"


def part_of(lesson: course.Lesson) -> str:
    """Lessons of one part are run together."""
    if lesson.number == CACHE_LOST:
        return "cache lost"
    return "alone" if lesson.number in ALONE else lesson.needs or "beside others"


PARTS = ("beside others", "docker", "alone", "cache lost")


def test_every_lesson_is_in_a_part() -> None:
    assert {part_of(lesson) for lesson in LESSONS} == set(PARTS)


@pytest.mark.solutions
@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(part, marks=[pytest.mark.alone] if part in ("docker", "alone") else [])
        for part in PARTS
    ],
)
def test_the_solutions_give_the_same_outputs_again(
    request: pytest.FixtureRequest, nbval, record_property, part: str
) -> None:
    """A cell that takes more than 60 s is interrupted, and red. The durations are printed."""
    chosen = [lesson for lesson in LESSONS if part_of(lesson) == part]
    if chosen[0].needs == "docker":
        request.getfixturevalue("engine")
    indexed = request.getfixturevalue("indexed")
    # What takes long once is done once, outside of any cell's time: what the model writes, and
    # the packages of the image that a lesson builds.
    fixed.ask(indexed.url("gateway"))
    for lesson in chosen:
        images.prepare(lesson)
    solutions = (lesson.solution for lesson in chosen)
    environment = request.getfixturevalue("system_environment")
    done = nbval(*solutions, environment=environment, timeout=1400)
    record_property("minutes of the solutions", durations(done.stdout))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    count = sum(len(cells(lesson)) for lesson in chosen)
    assert f"{count} passed" in done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]


SMALL = """\
# %%
print("answers:", 20)

# %%
{"ids": ["a", "b"], "count": 2}
"""


@pytest.mark.slow
def test_one_changed_output_turns_nbval_red(tmp_path: Path, nbval) -> None:
    """The comparison compares: without this, a green run would say nothing."""
    import nbclient

    notebook = lessons.to_notebook(SMALL, "99")
    nbclient.NotebookClient(notebook, kernel_name="python3", record_timing=False).execute()
    good, printed, shown = (tmp_path / f"{name}.ipynb" for name in ("good", "printed", "shown"))
    text = lessons.to_bytes(notebook).decode()
    good.write_text(text)
    printed.write_text(text.replace("answers: 20", "answers: 19", 1))
    shown.write_text(text.replace("'count': 2}", "'count': 3}", 1))
    assert printed.read_text() != text != shown.read_text()
    done = nbval(good, printed, shown, timeout=120)
    assert done.returncode == 1, done.stdout
    assert "4 passed" in done.stdout
    assert "2 failed" in done.stdout
