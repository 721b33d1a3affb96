"""The decks of `slides/`: one Marp file a lesson, read into slides, notes and demo steps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import course, paths
from .errors import WorkshopError

FOLDER = paths.ROOT / "slides"
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
MARKER = re.compile(r"^\s*(from|output|rows|figure|end|demo)\b")
"""How a comment begins that is filled from a file. Such a comment is no speaker note."""
_DIRECTIVE = re.compile(r"^\s*_?[a-zA-Z]+:\s")
_CLASS = re.compile(r"^\s*_class:\s*(.+?)\s*$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_MINUTES = re.compile(r"^(\d+(?:\.5)?) minutes?\.\s")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Strict):
    """One command of the demo, without the word `workshop`, and what to look at.

    `fails` is for a command that must be refused, where the refusal is what is shown.
    """

    look: Annotated[str, Field(min_length=10)]
    run: Annotated[str, Field(min_length=1)]
    fails: bool = False


class Front(_Strict):
    """What stands at the head of a deck."""

    title: Annotated[str, Field(min_length=1)]
    minutes: Annotated[float, Field(gt=0, le=12)]
    demo: Annotated[tuple[Step, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Slide:
    """`text` is the whole source of the slide, comments too."""

    number: int
    text: str

    @property
    def kinds(self) -> list[str]:
        """Its classes: title, question, picture, idea, demo, watch, or none."""
        found = (m for c in COMMENT.findall(self.text) if (m := _CLASS.match(c)))
        return [name for match in found for name in match[1].split()]

    @property
    def notes(self) -> str:
        """The speaker notes: comments that are neither markers nor directives of Marp."""
        return "\n\n".join(
            comment.strip()
            for comment in COMMENT.findall(self.text)
            if not MARKER.match(comment) and not _DIRECTIVE.match(comment)
        )

    @property
    def minutes(self) -> float | None:
        """Minutes that the notes begin with; None if they do not."""
        found = _MINUTES.match(self.notes + " ")
        return float(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Deck:
    """A file of `slides/`. `body` is what comes after the front matter."""

    path: Path
    front: Front
    body: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.path.stem[:2]

    @property
    def slides(self) -> list[Slide]:
        return [Slide(number, text) for number, text in enumerate(split(self.body), 1)]


def split(body: str) -> list[str]:
    """Slides are separated by lines of `---`, outside of fences and comments."""
    slides: list[list[str]] = [[]]
    fence, comment = "", False
    for line in body.splitlines():
        if not comment and (found := _FENCE.match(line)):
            if not fence:
                fence = found[1]
            elif found[1].startswith(fence):
                fence = ""
        if not fence:
            opened, closed = line.rfind("<!--"), line.rfind("-->")
            if opened > closed:
                comment = True
            elif closed > opened:
                comment = False
        if line.rstrip() == "---" and not fence and not comment:
            slides.append([])
        else:
            slides[-1].append(line)
    return ["\n".join(lines).strip("\n") for lines in slides]


def read(path: Path) -> Deck:
    """Raises `WorkshopError` that names the file and the field."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WorkshopError(f"slides/{path.name} could not be read: {error.strerror}.") from error
    parts = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    if parts is None:
        raise WorkshopError(
            f"slides/{path.name} does not begin with front matter.", "slides/README.md shows it."
        )
    try:
        front = Front.model_validate(yaml.safe_load(parts[1]))
    except yaml.YAMLError as error:
        raise WorkshopError(
            f"slides/{path.name}: the front matter is not YAML: {error}."
        ) from error
    except ValidationError as error:
        item = error.errors()[0]
        place = ", ".join(str(part) for part in item["loc"]) or "front matter"
        raise WorkshopError(f"slides/{path.name}, {place}: {item['msg']}.") from error
    return Deck(path, front, parts[2])


def path_of(lesson: course.Lesson) -> Path:
    return FOLDER / f"{lesson.name}.md"


def written() -> list[course.Lesson]:
    """The lessons that have a deck."""
    return [lesson for lesson in course.load() if path_of(lesson).is_file()]


def find(number: str) -> Deck:
    """The deck of a lesson. Raises `WorkshopError` if the lesson has none."""
    lesson = course.find(number)
    if not path_of(lesson).is_file():
        known = ", ".join(lesson.number for lesson in written())
        raise WorkshopError(f"Lesson {lesson.number} has no deck.", f"Decks: {known or 'none'}.")
    return read(path_of(lesson))
