"""The README names what is there: every lesson, every command, every file it links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from workshop import course
from workshop.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_lessons_is_the_one_list() -> None:
    """`course.toml` is the list; a lesson that the README forgets is found by nobody."""
    rows = re.findall(
        r"^\| \[(\d\d)\]\((\S+)\) \| (.+?) \| (\d+) \| (.+?) \|$", README, re.MULTILINE
    )
    expected = [
        (
            lesson.number,
            f"notebooks/{lesson.name}.ipynb",
            lesson.title,
            str(lesson.minutes),
            ", ".join(f"`{name}`" if name != "all" else name for name in lesson.services),
        )
        for lesson in course.load()
    ]
    assert rows == expected


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_of_the_workshop_exists() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"\bworkshop ([a-z][a-z-]+)", "\n".join(code())))
    assert len(named) > 10
    assert named - known == set()


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(code())))
    assert named
    assert named - targets == set()


def code() -> list[str]:
    """Fenced blocks and inline code."""
    return re.findall(r"```bash\n(.*?)```", README, re.DOTALL) + re.findall(r"`([^`\n]+)`", README)


@pytest.mark.parametrize("word", ["TODO", "FIXME", "TBD"])
def test_nothing_is_left_open(word: str) -> None:
    assert word not in README
