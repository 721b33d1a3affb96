"""Every exercise's check fails on the stub, passes on the solution, and rejects wrong answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from workshop import board, course, exercises, lessons, paths
from workshop import my_services as own
from workshop.errors import WorkshopError

WRONG = paths.ROOT / "lessons" / "wrong"
EXERCISES = [
    (lesson, number) for lesson in course.load() for number in exercises.exercises_of(lesson)
]
EVERY = pytest.mark.parametrize(
    ("lesson", "number"), EXERCISES, ids=[number for _, number in EXERCISES]
)


def results(lesson: course.Lesson, number: str, folder: Path) -> list[exercises.Result]:
    chosen = [check for check in exercises.checks_of(lesson) if check.exercise == number]
    return list(exercises.run_checks(chosen, folder))


def put(folder: Path, files: dict[tuple[str, str], str]) -> None:
    for (name, file), text in files.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_text(text)


def target(lesson: course.Lesson, number: str) -> tuple[str, str]:
    """(service, file) that an exercise writes."""
    found = {(c.service, c.file) for c in exercises.checks_of(lesson) if c.exercise == number}
    assert len(found) == 1
    return found.pop()


@EVERY
def test_the_stub_is_red_and_says_which_exercise(
    lesson: course.Lesson, number: str, tmp_path: Path
) -> None:
    put(tmp_path, lessons.saved_files(lessons.exercise_notebook(lesson)))
    for result in results(lesson, number, tmp_path):
        assert not result.green, f"passes on the stub: {result.title}"
        assert result.message.startswith(f"not written yet: exercise {number}: ")


@EVERY
def test_the_solution_is_green(lesson: course.Lesson, number: str, tmp_path: Path) -> None:
    put(tmp_path, lessons.saved_files(lessons.solution_notebook(lesson)))
    assert [str(r) for r in results(lesson, number, tmp_path) if not r.green] == []


@EVERY
def test_at_least_three_wrong_answers_are_rejected_with_a_reason(
    lesson: course.Lesson, number: str, tmp_path: Path
) -> None:
    service, file = target(lesson, number)
    wrong = sorted(WRONG.glob(f"{number.replace('.', '_')}_*.py"))
    assert len(wrong) >= 3
    for path in wrong:
        put(tmp_path, {(service, file): path.read_text()})
        red = [r for r in results(lesson, number, tmp_path) if not r.green]
        assert red, f"{path.name} is taken for right"
        assert all(len(r.message) > 15 for r in red)
        assert not any("not written yet" in r.message for r in red)


def test_every_wrong_answer_belongs_to_an_exercise() -> None:
    known = {number.replace(".", "_") for _, number in EXERCISES}
    assert {path.name for path in WRONG.glob("*.py") if path.name[:4] not in known} == set()


def test_every_exercise_of_a_source_has_checks() -> None:
    for lesson in course.load():
        text = lesson.source.read_text()
        for number in exercises.exercises_of(lesson):
            assert f"BEGIN SOLUTION {number}:" in text
        marks = text.count("BEGIN SOLUTION")
        assert (
            marks
            == len(exercises.exercises_of(lesson))
            == len(lessons.saved_files(lessons.solution_notebook(lesson)))
        )


# -- running the checks apart -------------------------------------------------------------

LESSON = course.find("05")


def test_a_missing_file_says_which_cell_to_run(my_services: Path) -> None:
    found = exercises.run_apart(LESSON, "05.1")
    assert not any(r.green for r in found)
    assert "my_services/hybrid_search/core.py is not there yet" in found[0].message


def test_an_error_names_the_learner_s_line(my_services: Path) -> None:
    text = "def reciprocal_rank_fusion(lists, *, weights=None, k=60.0):\n    return lists[3]\n"
    put(my_services, {("hybrid_search", "core.py"): text})
    assert "KeyError: 3 (core.py, line 2)" in exercises.run_apart(LESSON, "05.1")[0].message


def test_a_file_that_is_no_python_names_its_line(my_services: Path) -> None:
    put(my_services, {("hybrid_search", "core.py"): "x = 1\ndef f(:\n"})
    message = exercises.run_apart(LESSON, "05.1")[0].message
    assert "cannot be imported: SyntaxError" in message
    assert "line 2" in message


def test_a_loop_that_never_ends_is_ended(
    my_services: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exercises, "PATIENCE", 3.0)
    text = (
        "def reciprocal_rank_fusion(lists, **_):\n    print('{')\n    while True:\n        pass\n"
    )
    put(my_services, {("hybrid_search", "core.py"): text})
    (result,) = exercises.run_apart(LESSON, "05.1")
    assert "Look for a loop or a wait that never ends" in result.message


# -- my_services, progress, catch-up ------------------------------------------------------


def test_a_file_that_somebody_changed_is_set_aside(my_services: Path) -> None:
    assert own.write("hybrid_search", "core.py", "a = 1\n") is None
    assert own.write("hybrid_search", "core.py", "a = 2\n") is None  # the notebook's own
    (my_services / "hybrid_search" / "core.py").write_text("mine = 3\n")
    aside = own.write("hybrid_search", "core.py", "a = 4\n")
    assert aside is not None
    assert aside.read_text() == "mine = 3\n"
    assert aside.suffix == ".txt"
    assert (my_services / "hybrid_search" / "core.py").read_text() == "a = 4\n"


@pytest.mark.parametrize(
    ("name", "file"), [("../x", "core.py"), ("x", "../core.py"), ("x", "a.sh")]
)
def test_nothing_is_written_outside_of_my_services(my_services: Path, name: str, file: str) -> None:
    with pytest.raises(WorkshopError):
        own.write(name, file, "")


def test_the_program_takes_the_cores_that_are_there(my_services: Path) -> None:
    put(my_services, {("hybrid_search", "fan_out.py"): "async def ask_together(a, n): ...\n"})
    own.prepare("hybrid_search")
    text = (my_services / "hybrid_search" / "__main__.py").read_text()
    assert "create_app, together=ask_together" in text
    assert "fuse=" not in text
    compile(text, "__main__.py", "exec")


def test_a_person_s_own_program_is_left_alone(my_services: Path) -> None:
    put(my_services, {("hybrid_search", "__main__.py"): "print('mine')\n"})
    own.prepare("hybrid_search")
    assert (my_services / "hybrid_search" / "__main__.py").read_text() == "print('mine')\n"


def test_nothing_written_yet_is_said(my_services: Path) -> None:
    with pytest.raises(WorkshopError, match=r"has none of core\.py, fan_out\.py"):
        own.prepare("hybrid_search")


def test_the_board_shows_what_is_green_and_what_comes_next(my_services: Path) -> None:
    assert board.board().next_step == "exercise 00.1 in notebooks/00_start_here.ipynb"
    board.remember("00.1", "00.2")
    assert 'workshop.check("00")' in board.board().next_step
    board.remember("00")
    shown = str(board.board())
    assert shown.startswith("[x] 00")
    assert "[ ] 05" in shown
    second = next(number for lesson, number in EXERCISES if lesson.number != "00")
    assert f"Next: exercise {second}" in shown
    first = board.passed()["00"]
    board.remember("00")
    assert board.passed()["00"] == first


def test_catching_up_keeps_the_learner_s_files(my_services: Path) -> None:
    put(my_services, {("hybrid_search", "core.py"): "mine = 1\n"})
    done = board.catch_up("05")
    assert done.aside is not None
    assert (done.aside / "hybrid_search" / "core.py").read_text() == "mine = 1\n"
    assert done.files[:2] == (
        "my_services/start_here/trace.py",
        "my_services/start_here/impact.py",
    )
    assert not (my_services / "hybrid_search").exists()
    for number in ("00.1", "00.2"):
        assert all(r.green for r in results(course.find("00"), number, my_services))


def test_who_caught_up_goes_on_from_there(my_services: Path) -> None:
    board.remember("00.1", "00.2", "00")
    board.catch_up("11")
    assert board.board().next_step == "exercise 11.1 in notebooks/11_gateway.ipynb"
    later = [lesson.number for lesson in course.load() if lesson.number >= "11"]
    board.remember(*later, *(n for lesson, n in EXERCISES if lesson.number in later))
    assert board.board().next_step == "exercise 01.1 in notebooks/01_monolith.ipynb"


def test_catching_up_twice_loses_nothing(my_services: Path) -> None:
    put(my_services, {("hybrid_search", "core.py"): "mine = 1\n"})
    first = board.catch_up("05")
    second = board.catch_up("05")
    assert first.aside != second.aside
    assert first.aside is not None
    assert (first.aside / "hybrid_search" / "core.py").exists()


def test_catching_up_from_nothing(my_services: Path) -> None:
    assert board.catch_up("00").aside is None
    assert not my_services.exists() or not any(my_services.iterdir())
    shutil.rmtree(my_services, ignore_errors=True)


def test_a_wrong_name_of_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKSHOP_MY_SERVICES", str(tmp_path / "other"))
    with pytest.raises(WorkshopError, match="my_services"):
        own.folder()


def test_why_several_checks_in_a_row_are_red_is_said_once():
    rows = [("2.1", "one", "no"), ("2.1", "two", "no"), ("2.1", "three", ""), ("2.2", "four", "no")]
    shown = exercises.shown([exercises.Result(*row) for row in rows])
    assert [line.split() for line in shown.splitlines()] == [
        ["2.1", "RED", "one"],
        ["2.1", "RED", "two"],
        ["no"],
        ["2.1", "green", "three"],
        ["2.2", "RED", "four"],
        ["no"],
    ]
