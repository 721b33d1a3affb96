"""Markers fill in what a file says now, and refuse what it does not say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workshop import paths, slide_markers
from workshop.decks import Step
from workshop.errors import WorkshopError

CODE = '''\
LIMIT = 3


class Box:
    """A box."""

    def put(self, thing):
        """Put it in."""
        # BEGIN SOLUTION 05.1: put it
        self.thing = thing
        return self
        # END SOLUTION


answer = await ask()
'''
STUB = 'def f(a):\n    """Say a."""\n    raise NotImplementedError("exercise")\n'
CELLS = [
    {"cell_type": "code", "metadata": {}, "source": ["await a()\n"], "outputs": []},
    {
        "cell_type": "code",
        "metadata": {},
        "source": STUB.splitlines(True),
        "outputs": [{"text": ["a 1\n", "b 2\n", "c 3\n"]}],
    },
    {
        "cell_type": "code",
        "metadata": {"tags": ["nbval-ignore-output"]},
        "source": [],
        "outputs": [{"text": "took 5 ms\n"}],
    },
]
REPORT = {"stages": [{"stage": "bm25", "nDCG@10": 0.8168}, {"stage": "a/b", "value": "0.99 ×"}]}
TABLE = "# T\n\n| stage | x |\n|---|---|\n| bm25 | 1 |\n| dense | 2 |\n| hybrid | 3 |\n"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": CELLS}))
    (tmp_path / "a.json").write_text(json.dumps(REPORT))
    (tmp_path / "a.md").write_text(TABLE)
    return tmp_path


def filled(marker: str, block: str = "```\nold\n```") -> str:
    return slide_markers.fill(f"{marker}\n{block}\n\nrest\n").removeprefix(marker + "\n")


def test_a_method_comes_without_docstring_marks_and_indentation() -> None:
    assert filled("<!-- from a.py#Box.put -->") == (
        "```python\ndef put(self, thing):\n    self.thing = thing\n    return self\n```\n\nrest\n"
    )


def test_a_constant_and_an_awaited_value_are_found() -> None:
    assert "```python\nLIMIT = 3\n```" in filled("<!-- from a.py#LIMIT -->")
    assert "answer = await ask()" in filled("<!-- from a.py#answer -->")


def test_lines_between_two_patterns_are_taken_and_dedented() -> None:
    text = filled('<!-- from a.py#Box.put "self.thing" .. "return" -->')
    assert text.startswith("```python\nself.thing = thing\nreturn self\n```")


def test_a_block_that_is_not_there_is_written_and_its_language_is_kept() -> None:
    assert filled("<!-- from a.py#LIMIT -->", "") == "```python\nLIMIT = 3\n```\n\n\nrest\n"
    assert filled("<!-- from a.py#LIMIT -->", "```text\n```").startswith("```text\nLIMIT")


def test_a_stub_of_a_notebook_keeps_what_says_what_to_write() -> None:
    assert filled("<!-- from a.ipynb#f -->").startswith(f"```python\n{STUB}```\n")
    with pytest.raises(WorkshopError, match=r"a\.ipynb defines no g"):
        filled("<!-- from a.ipynb#g -->")


def test_an_output_is_taken_by_what_it_says() -> None:
    assert filled('<!-- output a.ipynb "b 2" .. "c 3" -->').startswith("```text\nb 2\nc 3\n```")


def test_rows_of_a_table_keep_its_head() -> None:
    text = filled('<!-- rows a.md "stage" "hybrid" "bm25" -->', "| old |\n|---|\n| old |")
    assert text == "\n| stage | x |\n|---|---|\n| hybrid | 3 |\n| bm25 | 1 |\n\nrest\n"


def test_a_figure_is_found_by_name_and_formatted() -> None:
    marker = "<!-- figure a.json#/stages/stage=bm25/nDCG@10 as .2f -->"
    assert slide_markers.fill(f"It is {marker}0<!-- end -->.\n") == (
        f"It is {marker}0.82<!-- end -->.\n"
    )
    by_place = "<!-- figure a.json#/stages/1/value as text --><!-- end -->"
    assert "-->0.99 ×<!-- end -->" in slide_markers.fill(by_place)
    by_name = "<!-- figure a.json#/stages/stage=a~1b/value as text --><!-- end -->"
    assert "-->0.99 ×<!-- end -->" in slide_markers.fill(by_name)


def test_the_demo_is_shown_as_its_commands() -> None:
    steps = (Step(look="Look at it closely.", run="status"),)
    assert slide_markers.fill("<!-- demo -->\n", "05", steps) == (
        "<!-- demo -->\n```bash\nworkshop demo 05\n# workshop status\n```\n"
    )


def test_filling_twice_changes_nothing() -> None:
    once = slide_markers.fill('<!-- from a.py#LIMIT -->\n\n<!-- rows a.md "stage" -->\n\nx\n')
    assert slide_markers.fill(once) == once


def test_a_changed_file_changes_the_deck(files: Path) -> None:
    once = slide_markers.fill("<!-- from a.py#LIMIT -->\n")
    (files / "a.py").write_text(CODE.replace("LIMIT = 3", "LIMIT = 4"))
    assert slide_markers.fill(once) != once


def test_what_is_shown_has_no_markers_and_what_is_unmarked_has_no_blocks() -> None:
    text = slide_markers.fill(
        "<!-- from a.py#LIMIT -->\n\nx <!-- figure a.json#/stages/0/nDCG@10 as .2f --><!-- end -->"
    )
    assert slide_markers.strip(text) == "```python\nLIMIT = 3\n```\n\nx 0.82\n"
    assert slide_markers.unmarked(text).strip() == "x"


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("<!-- from b.py#f -->", "no file of the repository"),
        ("<!-- from ../a.py#f -->", "no file of the repository"),
        ("<!-- from a.py#Box.take -->", "defines no Box.take"),
        ('<!-- from a.py#Box "nothing" -->', "no line holds 'nothing'"),
        ('<!-- from a.py#Box "return" .. "class" -->', "no line after it holds 'class'"),
        ('<!-- from a.py "x" "y" -->', "not understood"),
        ('<!-- from a.py "x -->', "open quotation mark"),
        ("<!-- from -->", "names no file"),
        ("<!-- output a.ipynb -->", "needs a piece"),
        ('<!-- output a.ipynb "d 4" -->', "no cell printed"),
        ('<!-- output a.ipynb "5 ms" -->', "not compared by the tests"),
        ('<!-- rows a.md "model" -->', "no table begins"),
        ('<!-- rows a.md "stage" "rerank" -->', "no row 'rerank'"),
        ("<!-- figure a.json#/stages/stage=x/y as .2f --><!-- end -->", "stage=x is not there"),
        ("<!-- figure a.json#/stages/1/value as .2f --><!-- end -->", "format code"),
    ],
)
def test_a_marker_that_points_at_nothing_is_refused(marker: str, says: str) -> None:
    with pytest.raises(WorkshopError) as error:
        slide_markers.fill(marker + "\n")
    assert says in str(error.value)
