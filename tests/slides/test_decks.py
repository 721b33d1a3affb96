"""Every deck has its frame, shows what its files say, and names only commands that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from workshop import cli, decks, demo, paths, slide_markers, slides
from workshop.errors import WorkshopError

DECKS = slides.every()
EVERY = pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.name)
# A measured number: with a decimal point, or with a unit. "95 %" is how an interval is named.
FIGURE = re.compile(r"(?<![\w.])(?!95 %)(?:\d+\.\d+(?![\w.])|\d+ ?(?:ms|MB|GB|kB|%|×|tokens/s))")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_a_file_of_slides_is_the_deck_of_a_lesson() -> None:
    names = {path.name for path in decks.FOLDER.glob("*.md")} - {"README.md"}
    assert names == {deck.path.name for deck in DECKS}
    assert DECKS


@EVERY
def test_what_is_shown_is_what_the_files_say(deck: decks.Deck) -> None:
    difference = slides.outdated(deck)
    assert not difference, "run `workshop slides --sync`:\n" + "\n".join(difference)


@EVERY
def test_a_deck_is_short_and_has_its_parts(deck: decks.Deck) -> None:
    assert 8 <= len(deck.slides) <= 15
    assert deck.slides[0].kinds == ["title"]
    kinds = [kind for slide in deck.slides for kind in slide.kinds]
    for kind in ("title", "question", "picture", "idea", "demo", "watch"):
        assert kinds.count(kind) == 1, f"{kinds.count(kind)} slides of the class {kind}"
    by_kind = {kind: slide for slide in deck.slides for kind in slide.kinds}
    assert "```mermaid\n" in by_kind["picture"].text
    assert "?" in slide_markers.strip(by_kind["question"].text).replace(
        by_kind["question"].notes, ""
    )
    assert f"workshop demo {deck.number}" in by_kind["demo"].text


@EVERY
def test_each_slide_has_notes_whose_minutes_add_up(deck: decks.Deck) -> None:
    for slide in deck.slides:
        assert slide.minutes is not None, f"slide {slide.number} does not say its minutes"
        said = slide.notes.split(".", 1)[1] if slide.minutes % 1 == 0 else slide.notes
        assert len(said.split()) >= 15, f"the notes of slide {slide.number} say nothing"
        assert slide.notes.rstrip()[-1] in ".?!"
    assert sum(slide.minutes or 0 for slide in deck.slides) == deck.front.minutes <= 12


@EVERY
def test_figures_and_code_come_from_files(deck: decks.Deck) -> None:
    """A number that was measured, and a block of code, stands behind a marker or not at all."""
    rest = slide_markers.unmarked(deck.body)
    for language, block in FENCE.findall(rest):
        if language == "bash":
            for line in block.splitlines():
                assert is_command(line), f"no such command: {line}"
        else:
            assert language == "mermaid", f"a block without a marker: {block}"
    prose = re.sub(r"^\d+(\.5)? minutes?\.", "", FENCE.sub("", rest), flags=re.MULTILINE)
    assert FIGURE.findall(re.sub(r"`[^`\n]+`", "", prose)) == []


def is_command(line: str) -> bool:
    words = line.split()
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (paths.ROOT / "Makefile").read_text(), re.MULTILINE)
        return words[1] in targets
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    return words[0] == "workshop" and words[1] in known


@EVERY
def test_the_demo_runs_real_commands_and_brings_back_what_it_stops(deck: decks.Deck) -> None:
    demo.check_steps(deck)
    gone: list[str] = []
    for step in deck.front.demo:
        command, *rest = step.run.split()
        if command == "stop":
            gone += rest
        elif command == "start":
            gone.remove(rest[0])
    assert gone == []


# -- the checks can fail --------------------------------------------------------------------

HEAD = """\
---
title: "05 · A deck"
minutes: 2
demo:
  - run: status
    look: Every process is ready.
---
"""


def deck_of(tmp_path: Path, body: str, head: str = HEAD) -> decks.Deck:
    path = tmp_path / "05_a_deck.md"
    path.write_text(head + body)
    return decks.read(path)


def test_slides_notes_and_minutes_are_read(tmp_path: Path) -> None:
    deck = deck_of(
        tmp_path,
        "\n<!-- _class: title -->\n# A\n\n<!--\n1.5 minutes. Say a.\n-->\n\n---\n\n"
        "```text\n---\n```\n<!-- from x -->\n<!-- 1 minute. Say b. -->\n",
    )
    first, second = deck.slides
    assert (first.kinds, first.minutes, first.notes) == (["title"], 1.5, "1.5 minutes. Say a.")
    assert (second.kinds, second.minutes, second.notes) == ([], 1.0, "1 minute. Say b.")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("minutes: 2", "minutes: 13", "minutes"),
        ("look: Every process is ready.", "look: it", "demo, 0, look"),
        ("minutes: 2", "minutes: 2\nlayout: wide", "layout"),
        ("---\n", "", "front matter"),
        ('title: "05 · A deck"', 'title: "05', "not YAML"),
    ],
)
def test_a_wrong_head_names_file_and_field(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(WorkshopError) as error:
        deck_of(tmp_path, "", HEAD.replace(old, new, 1))
    assert "slides/05_a_deck.md" in error.value.what
    assert says in error.value.what


@pytest.mark.parametrize("command", ["down", "ingest notes.md", "rm -r /", "ask 'open"])
def test_a_demo_cannot_run_anything_else(tmp_path: Path, command: str) -> None:
    deck = deck_of(tmp_path, "", HEAD.replace("run: status", f'run: "{command}"'))
    with pytest.raises(WorkshopError):
        demo.check_steps(deck)


def test_figures_without_a_marker_are_seen() -> None:
    for text in ("it reaches 0.817 here", "takes 32 ms", "in 75 % of the cases", "1.24 ×"):
        assert FIGURE.findall(text), text
    for text in ("lesson 05", "1/61", "the 95 % interval", "k is 60", "version v1.2.3"):
        assert FIGURE.findall(text) == [], text


def test_a_picture_of_a_notebook_is_found_by_its_id_or_by_its_source(tmp_path: Path) -> None:
    def cell(name: str, source: str, png: str) -> dict[str, object]:
        return {"id": name, "source": [source], "outputs": [{"data": {"image/png": png}}]}

    notebook = tmp_path / "a.ipynb"
    cells = [cell("gains", "bars()", "YQ=="), cell("x-1", "plot(gains)", "Yg==")]
    notebook.write_text(json.dumps({"cells": [*cells, cell("x-2", "plot(other)", "Yw==")]}))
    assert slides._drawn(notebook, "gains") == b"a"
    assert slides._drawn(notebook, "plot(other)") == b"c"
    assert slides._drawn(notebook, "plot(") is None  # two have it
    assert slides._drawn(notebook, "nothing") is None
    assert slides._drawn(notebook, "") is None
