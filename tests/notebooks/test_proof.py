"""The proof and the bill: what they compare, and what they refuse to compare."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

import workshop
from workshop import bills, fixed, learn, paths, sync
from workshop.errors import WorkshopError
from workshop.fixed import FixedAnswer

BEFORE = [FixedAnswer("A-1", ("p", "q"), "Yes [1]."), FixedAnswer("A-2", ("r",), "No [1].")]


def test_equal_answers_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    workshop.same(BEFORE, list(BEFORE))
    assert capsys.readouterr().out == "2 of 2 equal\n"


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ([BEFORE[0], BEFORE[1]._replace(text="Maybe [1].")], "A-2: same passages, another text"),
        ([BEFORE[0]._replace(passages=("q", "p")), BEFORE[1]], "A-1: the passages differ from pl"),
        ([BEFORE[0]._replace(passages=("p",)), BEFORE[1]], "before q, after nothing"),
        ([BEFORE[0]], "before holds 2 answers and after 1"),
        (BEFORE[::-1], "in another order"),
    ],
)
def test_the_first_difference_is_named(after: list[FixedAnswer], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        workshop.same(BEFORE, after)


def test_nothing_is_not_equal_to_nothing() -> None:
    with pytest.raises(AssertionError, match="nothing to compare"):
        workshop.same([], [])


def test_the_fixed_questions_are_twenty_in_two_languages() -> None:
    rows = fixed.fixed_questions()
    assert len(rows) == fixed.COUNT == 20
    assert {row["language"] for row in rows} == {"en", "pt"}
    assert fixed.fixed_questions(1, 5) + fixed.fixed_questions(6) == rows
    with pytest.raises(WorkshopError, match="1 to 20"):
        fixed.fixed_questions(15, 21)


@pytest.mark.parametrize(("misses", "right"), [(2, True), (3, False)])
def test_an_answer_that_missed_a_stage_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, misses: int, right: bool
) -> None:
    degraded = [["reranking"]] * misses + [[]]

    async def answer(gateway: str, question: str) -> dict[str, object]:
        return {"degraded": degraded.pop(0), "sources": [], "answer": question}

    monkeypatch.setattr(fixed.client, "answer", answer)
    if right:
        assert [found.text for found in fixed.ask("", 1, 1)] == [
            fixed.fixed_questions(1, 1)[0]["question"]
        ]
    else:
        with pytest.raises(WorkshopError, match="reranking did not take part"):
            fixed.ask("", 1, 1)


def test_what_is_asked_meanwhile_says_what_it_lacked(monkeypatch: pytest.MonkeyPatch) -> None:
    three = threading.Event()
    outcomes = iter([[], ["reranking", "feedback"], WorkshopError("gateway did not answer.")])

    def ask(self: object, question: str) -> learn.Answer:
        if (outcome := next(outcomes, None)) is None:
            three.set()
        elif isinstance(outcome, WorkshopError):
            raise outcome
        return learn.Answer({"degraded": outcome or []})

    monkeypatch.setattr(learn.Running, "ask", ask)
    with learn.Running(None).asking() as asked:  # type: ignore[arg-type]
        assert three.wait(10)
    said = [one.lost for one in asked]
    assert said[:3] == ["", "degraded: reranking, feedback", "failed: gateway did not answer."]
    assert set(said[3:]) == {""}
    assert [one.at for one in asked] == sorted(one.at for one in asked)
    count = len(asked)
    time.sleep(0.2)
    assert len(asked) == count, "it goes on after the block"


def test_a_bill_shows_itself_as_text_and_as_a_table() -> None:
    bill = bills.Bill((bills.Line("hybrid_search", 60, 12.5, 10.0, 30_000_000, 100, 20_000),))
    assert bill.lines[0].on_the_way == 2.5
    header, row = str(bill).splitlines()
    assert len(header) == len(row)
    assert row.split() == ["hybrid_search", "12.50", "10.00", "2.50", "30", "100", "20000"]
    assert "<td>2.50</td>" in bill._repr_html_()


def test_waiting_works_where_a_loop_runs_already() -> None:
    async def value() -> int:
        await asyncio.sleep(0)
        return 7

    async def notebook() -> int:
        return sync.wait(value())

    assert sync.wait(value()) == 7
    assert asyncio.run(notebook()) == 7


def test_the_import_is_light_and_names_what_notebooks_use() -> None:
    code = (
        "import sys, workshop; "
        "print([m for m in ('aiohttp', 'numpy', 'pydantic', 'psutil') if m in sys.modules]); "
        "print(callable(workshop.start), 'start' in dir(workshop))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "True True"]
    with pytest.raises(AttributeError):
        _ = workshop.no_such_name


def test_the_command_says_what_is_red_without_a_traceback(my_services) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workshop.cli", "check", "05.2"],
        cwd=paths.ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "RED    Every name has its own answer" in done.stdout
    assert "05.2: 0 of 4 green" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (paths.home() / "progress.json").exists()
