"""The list of lessons: `course.toml`, loaded and checked."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import catalogue
from .errors import WorkshopError
from .paths import ROOT

COURSE = ROOT / "course.toml"
Text = Annotated[str, Field(min_length=1)]
Number = Annotated[str, Field(pattern=r"^\d\d$")]
Core = dict[Annotated[str, Field(pattern=r"^[a-z_]+\.py$")], dict[str, str]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Probe(_Strict):
    """A request that stands for the service's usual work."""

    path: Annotated[str, Field(pattern=r"^/v1/")]
    body: dict[str, Any]


class Lesson(_Strict):
    """One lesson. Its files share one name: lessons/, notebooks/, solutions/, lessons/checks/."""

    number: Number
    slug: Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]
    title: Text
    level: Literal["beginner", "intermediate", "advanced"]
    minutes: Annotated[int, Field(ge=1, le=45)]
    prerequisites: tuple[Number, ...] = ()
    goals: Annotated[tuple[Text, ...], Field(min_length=1)]
    services: Annotated[tuple[str, ...], Field(min_length=1)]
    core: dict[str, Core] = {}
    probe: dict[str, Probe] = {}
    needs: Literal["", "docker"] = ""

    @property
    def name(self) -> str:
        return f"{self.number}_{self.slug}"

    @property
    def source(self) -> Path:
        return ROOT / "lessons" / f"{self.name}.py"

    @property
    def notebook(self) -> Path:
        return ROOT / "notebooks" / f"{self.name}.ipynb"

    @property
    def solution(self) -> Path:
        return ROOT / "solutions" / f"{self.name}.ipynb"

    @property
    def checks(self) -> Path:
        return ROOT / "lessons" / "checks" / f"{self.name}.py"


class _Course(_Strict):
    lesson: tuple[Lesson, ...]


def load(path: Path = COURSE) -> list[Lesson]:
    """Every lesson, in order. Raises `WorkshopError` that names the file, the lesson and the field.

    Prerequisites must be listed before, services must be those of the catalogue (or `all`).
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        lessons = list(_Course.model_validate(data).lesson)
    except OSError as error:
        raise WorkshopError(f"{path.name} could not be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise WorkshopError(f"{path.name} is not valid TOML: {error}.") from error
    except ValidationError as error:
        raise WorkshopError(f"{path.name}: {_first(error, data)}") from error
    seen: list[str] = []
    for lesson in lessons:
        where = f"{path.name}, lesson {lesson.number}"
        if seen and lesson.number <= seen[-1]:
            raise WorkshopError(f"{where}: it comes after lesson {seen[-1]}; order them by number.")
        for needed in lesson.prerequisites:
            if needed not in seen:
                raise WorkshopError(f"{where}: prerequisite {needed} is not listed before it.")
        for name in {*lesson.services, *lesson.core, *lesson.probe} - {"all"}:
            if name not in (*catalogue.SERVICES, "monolith"):
                raise WorkshopError(f"{where}: there is no service named {name}.")
        seen.append(lesson.number)
    return lessons


def _first(error: ValidationError, data: dict[str, Any]) -> str:
    """The first thing that is wrong, with the lesson's number in the place of its position."""
    item = error.errors()[0]
    place = [str(part) for part in item["loc"]]
    if len(place) > 1 and place[0] == "lesson":
        entry = data["lesson"][int(place[1])]
        place = [f"lesson {entry.get('number', place[1])}", *place[2:]]
    return f"{', '.join(place)}: {item['msg']}."


def find(number: str, lessons: list[Lesson] | None = None) -> Lesson:
    """The lesson of a number (`05` or `5`) or a name (`05_hybrid_search`)."""
    known = load() if lessons is None else lessons
    wanted = number.strip().zfill(2)
    for lesson in known:
        if wanted in (lesson.number, lesson.name):
            return lesson
    raise WorkshopError(
        f"There is no lesson {number}.", f"Known: {', '.join(lesson.name for lesson in known)}."
    )


def core_of(service: str) -> Core:
    """The files of `service` that a learner writes, over all lessons."""
    found: Core = {}
    for lesson in load():
        found |= lesson.core.get(service, {})
    return found


def probe_of(service: str) -> Probe:
    for lesson in load():
        if service in lesson.probe:
            return lesson.probe[service]
    raise WorkshopError(
        f"No lesson says what to ask of {service}.",
        f"Add [lesson.probe.{service}] to course.toml.",
    )
