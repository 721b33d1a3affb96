"""Images of services: what a Dockerfile says, what an engine made of it, and `workshop images`.

Where no engine answers, sizes, layers and build times come from `reports/images.json`, which
`workshop bench images` writes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from . import containers, paths
from .course import Lesson
from .errors import WorkshopError

REPORT = paths.ROOT / "reports" / "images.json"
FILE_MAKERS = frozenset({"ADD", "COPY", "RUN", "WORKDIR"})
"""Instructions that add a layer of files."""
OTHERS = frozenset(
    {"ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD"}
    | {"SHELL", "STOPSIGNAL", "USER", "VOLUME"}
)
"""Instructions that change the image's configuration only."""

KINDS = ("all anew", "one line", "no change")
"""The builds that are timed; the first only where it was asked for."""

console = Console(highlight=False)


# -- the Dockerfile -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a Dockerfile.

    `stage` is the stage that it stands in, `takes_from` an earlier stage whose files it needs,
    `sources` the paths that it reads of the build's folder ("." is all of it).
    """

    line: int
    stage: str
    instruction: str
    value: str
    takes_from: str = ""
    sources: tuple[str, ...] = ()

    @property
    def makes_files(self) -> bool:
        return self.instruction in FILE_MAKERS

    def __str__(self) -> str:
        return f"{self.instruction} {self.value}"


def steps(dockerfile: str) -> list[Step]:
    """The instructions of a Dockerfile, in order. Raises `WorkshopError` that names a line.

    Read are the forms that the services use: no heredoc, no JSON form of COPY.
    """
    found: list[Step] = []
    stages: list[str] = []
    for number, line in _logical_lines(dockerfile):
        instruction, _, value = line.partition(" ")
        instruction, words = instruction.upper(), value.split()
        if instruction not in FILE_MAKERS | OTHERS or not words:
            raise WorkshopError(
                f"Line {number} of the Dockerfile is not understood: {line[:60]}",
                f"A line begins with an instruction: {', '.join(sorted(FILE_MAKERS | OTHERS))}.",
            )
        takes_from, sources = "", tuple[str, ...]()
        if instruction == "FROM":
            takes_from = words[0] if words[0] in stages else ""
            named = [word.lower() for word in words[1:2]] == ["as"] and len(words) == 3
            stages.append(words[2] if named else str(len(stages)))
        elif instruction in ("ADD", "COPY"):
            given = re.search(r"(?:^|\s)--from=(\S+)", value)
            takes_from = given[1] if given and given[1] in stages else ""
            plain = [word for word in words if not word.startswith("--")]
            sources = () if given else tuple(word.rstrip("/") or "." for word in plain[:-1])
        stage = stages[-1] if stages else ""
        found.append(Step(number, stage, instruction, " ".join(words), takes_from, sources))
    return found


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of its first line, line): continuations joined, comments and empty lines left out."""
    found: list[tuple[int, str]] = []
    joined, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        first = first if joined else number
        joined = " ".join([*([joined] if joined else []), line.removesuffix("\\").strip()])
        if not line.endswith("\\"):
            found.append((first, joined))
            joined = ""
    return [*found, (first, joined)] if joined else found


def dockerfile_of(name: str) -> str:
    """The Dockerfile of a service of the workshop."""
    try:
        return (paths.ROOT / "services" / name / "Dockerfile").read_text(encoding="utf-8")
    except OSError:
        raise WorkshopError(
            f"No service {name} has a Dockerfile.", f"Known: {', '.join(names())}."
        ) from None


def names() -> list[str]:
    """Every service that has an image."""
    return sorted(path.parent.name for path in (paths.ROOT / "services").glob("*/Dockerfile"))


# -- the engine ---------------------------------------------------------------------------


class NoEngine:
    """Stands where a client of the engine would: it is false, and any use says how to get one."""

    def __init__(self, error: WorkshopError) -> None:
        self._error = error

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise WorkshopError(
            "This needs a Docker engine, and so does what uses its result.", self._error.way_out
        )


def docker() -> Any:
    """A client of the engine, as `docker.from_env()` gives it, or a `NoEngine` after a line."""
    try:
        client = containers.engine()
    except WorkshopError as error:
        print(f"{error} Until then this notebook reads sizes and times from reports/images.json.")
        return NoEngine(error)
    print("a Docker engine answers")
    return client


def missing(lesson: Lesson) -> str:
    """Why the solution of a lesson cannot be run here, as one line; "" if it can."""
    if lesson.needs == "docker":
        try:
            containers.engine()
        except WorkshopError as error:
            return f"{lesson.name} is not run: {error}"
    return ""


def prepare(lesson: Lesson) -> None:
    """Bring in what the first run of a lesson would wait for: the packages of its images."""
    if lesson.needs == "docker":
        for name in lesson.services:
            build(name, f"lesson-{lesson.number}")


def build(
    name: str, tag: str, *, dockerfile: str = "", root: Path = paths.ROOT, cache: bool = True
) -> float:
    """Build `rag-workshop/NAME:TAG` from a Dockerfile's text (default: the service's own).

    `root` is the folder that the build reads. Gives seconds; raises `WorkshopError` with what the
    builder said last.
    """
    containers.engine()
    builder = {} if containers.has_buildx() else {"DOCKER_BUILDKIT": "0"}
    command = ["docker", "build", "--quiet", *([] if cache else ["--no-cache"])]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--tag", f"rag-workshop/{name}:{tag}", "--file", "-", "."],
        input=dockerfile or dockerfile_of(name),
        cwd=root,
        env={**os.environ, **builder},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        raise WorkshopError(f"The image of {name} cannot be built: {said[-1].strip()}")
    return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Layer:
    """Files that one step added. `digest` is the hash of these files; "" in a report."""

    step: str
    bytes: int
    digest: str = ""


def layers(client: Any, name: str, tag: str, dockerfile: str = "") -> list[Layer]:
    """The layers of `rag-workshop/NAME:TAG`, lowest first; those of its base are one, the first."""
    found = steps(dockerfile or dockerfile_of(name))
    image = client.images.get(f"rag-workshop/{name}:{tag}")
    last = found[-1].stage
    own = [step for step in found if step.stage == last and step.makes_files]
    base = next(s.value for s in found if s.stage == last and s.instruction == "FROM")
    for default in (s.value for s in found if not s.stage):  # ARG NAME=DEFAULT, before any stage
        argument, _, value = default.partition("=")
        base = base.replace(f"${{{argument}}}", value)
    # The history has every instruction, newest first; each that makes files has one layer.
    sizes = [entry["Size"] for entry in image.history() if _makes_files(entry["CreatedBy"])]
    own_sizes = sizes[: len(own)][::-1]
    digests = image.attrs["RootFS"]["Layers"]
    below = image.attrs["Size"] - sum(own_sizes)
    return [
        Layer(f"FROM {base}", below, " ".join(digests[: -len(own)])),
        *map(Layer, map(str, own), own_sizes, digests[-len(own) :]),
    ]


def address(container: Any) -> str:
    """Where this machine reaches a container: its first published port."""
    container.reload()
    published = next(found for found in container.ports.values() if found)
    return f"http://127.0.0.1:{published[0]['HostPort']}"


def wait_until_ready(container: Any, patience: float = 60.0) -> None:
    """Return when the service in it is ready. Raises `WorkshopError` with what it said last."""
    url = f"{address(container)}/readyz"
    end = time.monotonic() + patience
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            if time.monotonic() > end:
                said = container.logs(tail=1).decode("utf-8", "replace").strip()
                raise WorkshopError(
                    f"The container was not ready within {patience:g} s.", f"It said: {said}"
                ) from None
        time.sleep(0.1)


def _makes_files(created_by: str) -> bool:
    """Of an entry of an image's history, as the classic builder or BuildKit wrote it."""
    said = created_by.partition("#(nop)")[2].strip() or created_by
    return said.partition(" ")[0] not in OTHERS


# -- the report ---------------------------------------------------------------------------


def report() -> dict[str, Any]:
    """What `workshop bench images` wrote: `machine`, `engine`, and `images` by name."""
    try:
        return dict(json.loads(REPORT.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise WorkshopError(
            f"reports/{REPORT.name} could not be read: {error}.",
            "`workshop bench images` makes it.",
        ) from error


def reported_layers(name: str) -> list[Layer]:
    """The layers of a service's image, as the report has them."""
    known = report()["images"]
    if name not in known:
        raise WorkshopError(f"The report has no image {name}.", f"Known: {', '.join(known)}.")
    return [Layer(**layer) for layer in known[name]["layers"]]


def command(
    name: Annotated[str | None, typer.Argument(help="a service: the layers of its image")] = None,
) -> int:
    """Sizes, budgets and build times of the images, as the last `workshop bench images` found."""
    found = report()
    if name is not None:
        console.print(_layer_table(reported_layers(name)))
        return 0
    console.print(size_table(found))
    where = f"{found['date']}, {found['machine']}, {found['engine']}"
    console.print(where, style="dim", soft_wrap=True)
    return 0


def size_table(found: dict[str, Any]) -> Table:
    table = _table("image", "MB", "budget", "own MB", "all anew, s", "one line, s", "no change, s")
    for name, image in found["images"].items():
        own = sum(layer["bytes"] for layer in image["layers"][1:])
        seconds = image["seconds"]
        table.add_row(
            name,
            f"{image['bytes'] / 1e6:.0f}",
            f"{image['budget'] / 1e6:.0f}",
            f"{own / 1e6:.0f}",
            *(f"{seconds[kind]:.1f}" if kind in seconds else "" for kind in KINDS),
        )
    return table


def plot(found: dict[str, Any]) -> None:
    """Bars of the sizes with their budgets, and the times of the three builds."""
    from matplotlib import pyplot as plt

    known = found["images"]
    _, (sizes, times) = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    sizes.barh(list(known), [image["bytes"] / 1e6 for image in known.values()])
    budgets = [image["budget"] / 1e6 for image in known.values()]
    sizes.scatter(budgets, list(known), color="black", marker="|", s=120)
    sizes.invert_yaxis()
    sizes.set_xlabel("MB; the mark is the budget")
    for kind in KINDS:
        built = {name: i["seconds"][kind] for name, i in known.items() if kind in i["seconds"]}
        times.scatter(list(built.values()), list(built), label=kind)
    times.set(xlabel="seconds of a build", xscale="log")
    times.legend()
    plt.show()


def _layer_table(found: Sequence[Layer]) -> Table:
    table = _table("step", "MB")
    for layer in found:
        table.add_row(layer.step[:70], f"{layer.bytes / 1e6:.2f}")
    table.add_row("all", f"{sum(layer.bytes for layer in found) / 1e6:.2f}", style="dim")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table
