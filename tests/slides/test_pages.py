"""Every deck is built, and each of its pages holds what is on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workshop import decks, slides

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DECKS = slides.every()


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if lacks := slides.missing():
        pytest.skip(lacks)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decks") / "dist"
    slides.build(DECKS, folder)
    return folder


def test_each_deck_becomes_html_and_pdf(built: Path) -> None:
    for deck in DECKS:
        html = (built / f"{deck.name}.html").read_text()
        assert html.count("<section") >= len(deck.slides)
        assert "<!-- from" not in html
        pdf = (built / f"{deck.name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        assert pages_of(built / f"{deck.name}.pdf") == len(deck.slides)


def pages_of(path: Path) -> int:
    from pypdf import PdfReader

    return len(PdfReader(path).pages)


def test_everything_fits_on_its_slide_and_nothing_is_fetched(built: Path) -> None:
    assert [str(fault) for fault in slides.look_at(DECKS, built)] == []


HEAD = (
    '---\ntitle: "T"\nminutes: 1\ndemo:\n  - run: status\n    look: Every process is there.\n---\n'
)


@pytest.fixture
def faults_of(tmp_path: Path) -> Callable[[str], list[str]]:
    def look(body: str) -> list[str]:
        path = tmp_path / "05_bad.md"
        path.write_text(HEAD + body)
        deck = decks.read(path)
        slides.build([deck], tmp_path / "dist", pdf=False)
        found = [str(fault) for fault in slides.look_at([deck], tmp_path / "dist")]
        shutil.rmtree(tmp_path / "dist")
        return found

    return look


def test_a_deck_that_overflows_is_red(faults_of: Callable[[str], list[str]]) -> None:
    """Each kind of fault is on a slide of its own; the second slide is good."""
    broad = "```text\n" + "x" * 130 + "\n```"
    tiny = "```mermaid\nflowchart LR\n" + "\n".join(f"  a{n} --> a{n + 1}" for n in range(30))
    pages = [
        "# Too long\n\n" + "\n".join(f"- line {n}" for n in range(30)),
        "# Good\n\nOne line.\n\n```mermaid\nflowchart LR\n  a --> b\n```",
        "# Too broad\n\n" + broad,
        "<!-- _class: idea -->\n\n" + "\n\n".join(["## A heading"] * 12),
        "# Small\n\n" + tiny + "\n```",
        '# Small print\n\n<span style="font-size: 9px">nobody reads this</span>',
        '# Gone\n\n<img src="gone.png" width="300" height="100">',
        '# Beside\n\n<p style="position: absolute; left: 1200px; top: 80px">beside the page</p>',
        '# Foreign\n\n<img src="http://127.0.0.1:9/x.png" width="30" height="30">',
    ]
    found = faults_of("\n\n---\n\n".join(pages))
    by_slide = {n: [f for f in found if f.startswith(f"05_bad, slide {n}:")] for n in range(10)}
    assert by_slide[2] == []
    for number, says in {
        0: "asks the network",
        1: "too much text in height",
        3: "wider than its box",
        4: "outside",
        5: "too small to read",
        6: "too small to read",
        7: "could not be drawn",
        8: "outside",
    }.items():
        assert any(says in fault for fault in by_slide[number]), (number, found)


def test_a_diagram_that_is_wrong_names_its_deck(faults_of: Callable[[str], list[str]]) -> None:
    with pytest.raises(slides.WorkshopError, match=r"05_bad\.md: Mermaid does not understand"):
        faults_of("```mermaid\nflowchart LR\n  a -->\n```\n")


def test_a_picture_that_is_not_there_is_refused(faults_of: Callable[[str], list[str]]) -> None:
    with pytest.raises(slides.WorkshopError, match="there is no picture"):
        faults_of("![x](../reports/none.png)\n")
