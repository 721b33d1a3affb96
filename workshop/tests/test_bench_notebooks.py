"""The table and the report of `workshop bench notebooks`, and the limits that it holds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from workshop import bench_notebooks, course, fixed, lessons
from workshop.bench_notebooks import Timing

QUICK = Timing("05_x", 3, 20.04, "lesson-05-03", "x = 1", 9.5)
SLOW = Timing("06_y", 4, 70.0, "lesson-06-01", "y = 2", 60.5)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Timing]:
    """The timings that the command is given, in the place of running the course."""
    found = [QUICK]
    monkeypatch.setattr(bench_notebooks.course, "load", lambda: course_of(found))
    monkeypatch.setattr(bench_notebooks, "measure", lambda lesson: lesson)
    monkeypatch.setattr(bench_notebooks.system, "running", lambda: Here())
    monkeypatch.setattr(fixed, "ask", lambda gateway: [])
    return found


class Here:
    def url(self, name: str) -> str:
        return "http://127.0.0.1:1"


class Named(Timing):
    needs = ""

    @property
    def name(self) -> str:
        return self.notebook


def course_of(timings: list[Timing]) -> list[Timing]:
    return [Named(*(getattr(t, f) for f in Timing.__slots__)) for t in timings]


def test_the_report_has_each_notebook_and_the_limits(
    measured: list[Timing], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_notebooks.command(tmp_path) == 0
    report = json.loads((tmp_path / "notebooks.json").read_text())
    assert report["limits"] == {"cell": 60.0, "all": 600.0}
    assert report["notebooks"][0]["slowest_seconds"] == 9.5
    assert report["all"] == pytest.approx(20.0, abs=0.2)
    shown = capsys.readouterr().out
    assert "05_x" in shown
    assert "0.33" in shown


def test_a_lesson_that_cannot_run_here_is_named_and_no_report_is_written(
    measured: list[Timing], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    measured.append(SLOW)
    cannot = {"06_y": "06_y is not run: no engine"}
    monkeypatch.setattr(bench_notebooks.images, "missing", lambda one: cannot.get(one.name, ""))
    assert bench_notebooks.command(tmp_path) == 0
    shown = capsys.readouterr().out
    assert "06_y is not run: no engine" in shown
    assert shown.count("06_y") == 1
    assert not (tmp_path / "notebooks.json").exists()


def test_a_slow_cell_is_a_failure(measured: list[Timing], tmp_path: Path) -> None:
    measured.append(SLOW)
    assert bench_notebooks.command(tmp_path) == 1


def test_a_long_course_is_a_failure(measured: list[Timing], tmp_path: Path) -> None:
    measured[:] = [Timing("05_x", 3, 601.0, "a", "b", 1.0)]
    assert bench_notebooks.command(tmp_path) == 1


@pytest.mark.slow
def test_each_cell_of_a_run_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '# %% id="quick"\nx = 1\n\n# %% id="slow"\nimport time\ntime.sleep(0.5)\n'
    lesson = course.find("05")
    notebook = lessons.to_notebook(source, "05")
    monkeypatch.setattr(lessons, "solution_notebook", lambda _: notebook)
    started = time.monotonic()
    timing = bench_notebooks.measure(lesson)
    assert timing.seconds <= time.monotonic() - started
    assert (timing.cells, timing.slowest_cell, timing.slowest) == (2, "slow", "import time")
    assert 0.5 <= timing.slowest_seconds < timing.seconds
