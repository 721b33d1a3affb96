"""The learner's own services: `my_services/NAME/FILE`, written from notebook cells.

The learner writes a service's core. The rest (API, settings, health) is the reference's: a
generated `__main__.py` hands the core to the reference's `create_app`. `course.toml` says which
file holds which function, and which argument of `create_app` takes it.
"""

from __future__ import annotations

import hashlib
import json
import linecache
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import course, paths
from .errors import WorkshopError

GENERATED = "written by the workshop"
_CALL = re.compile(r"^workshop\.save_cell\(\s*\"(\w+)\",\s*\"([\w.]+)\"\s*\)\s*$")


def folder() -> Path:
    """`my_services` in the repository, or what `WORKSHOP_MY_SERVICES` names."""
    found = Path(os.environ.get("WORKSHOP_MY_SERVICES") or paths.ROOT / "my_services").absolute()
    if found.name != "my_services":
        raise WorkshopError(
            f"WORKSHOP_MY_SERVICES names {found.name}.",
            "It must be a folder called my_services: that is the package's name.",
        )
    return found


def label(name: str, file: str) -> str:
    """The path as people see it, the same on every machine."""
    return f"my_services/{name}/{file}"


# -- writing ------------------------------------------------------------------------------


def split_call(source: str) -> tuple[str, str, str] | None:
    """(name, file, the rest) of a cell that saves itself; None for any other cell."""
    lines = source.splitlines()
    for number, line in enumerate(lines):
        if found := _CALL.match(line):
            rest = "\n".join(lines[:number] + lines[number + 1 :]).strip("\n") + "\n"
            return found[1], found[2], rest
    return None


def save_cell(name: str, file: str) -> None:
    """Write this notebook cell, without this line, to `my_services/NAME/FILE`; it runs as well.

    A file that was changed outside of the notebook is set aside first, and the cell says where.
    """
    # IPython registers a cell's source under the file name that it compiles the cell with.
    lines = linecache.getlines(sys._getframe(1).f_code.co_filename)
    found = split_call("".join(lines)) if "ipykernel" in sys.modules else None
    if found is None or found[:2] != (name, file):
        raise WorkshopError(
            "save_cell did not find itself in this cell.",
            f'Write it on a line of its own: workshop.save_cell("{name}", "{file}")',
        )
    aside = write(name, file, found[2])
    if aside is not None:
        print(f"{label(name, file)} had changes that this notebook did not make.")
        print(f"They are kept in {aside.relative_to(folder().parent)}.")
    print(f"{label(name, file)}: {len(found[2].splitlines())} lines")


def write(name: str, file: str, text: str) -> Path | None:
    """Write one file; the path of the copy if an unknown version of it had to be set aside."""
    if not re.fullmatch(r"[a-z][a-z_]*", name) or not re.fullmatch(r"[a-z][a-z_]*\.py", file):
        raise WorkshopError(f"{name}/{file} cannot be a file of my_services.", "Use lower case.")
    target = folder() / name / file
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = None
    if target.exists() and target.read_text(encoding="utf-8") != text:
        known = _written().get(f"{name}/{file}")
        if hashlib.sha256(target.read_bytes()).hexdigest() != known:
            aside = free_name(target.with_name(f"{target.stem}-{_stamp()}.py.txt"))
            target.rename(aside)
    target.write_text(text, encoding="utf-8")
    _remember(f"{name}/{file}", hashlib.sha256(target.read_bytes()).hexdigest())
    return aside


def _record() -> Path:
    """Hashes of what notebooks wrote: another content is somebody's own work."""
    return paths.home() / "my_services.json"


def _written() -> dict[str, str]:
    try:
        return dict(json.loads(_record().read_text()).get(str(folder()), {}))
    except (OSError, ValueError, AttributeError):
        return {}


def _remember(key: str, digest: str) -> None:
    known = _written() | {key: digest}
    try:
        every = dict(json.loads(_record().read_text()))
    except (OSError, ValueError):
        every = {}
    paths.replace_file(_record(), json.dumps(every | {str(folder()): known}, indent=1))


def _stamp() -> str:
    return time.strftime("%Y-%m-%d-%H%M%S")


def free_name(path: Path) -> Path:
    """`path`, or the first of `path.2`, `path.3`, … that nothing has yet."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.name}.{number}")
        number += 1
    return free


def set_aside() -> Path | None:
    """Rename the whole folder to a dated name beside it; None if there is none."""
    here = folder()
    if not here.exists() or not any(here.iterdir()):
        return None
    aside = free_name(here.with_name(f"my_services-{_stamp()}"))
    here.rename(aside)
    return aside


# -- running ------------------------------------------------------------------------------


def command(name: str) -> list[str]:
    """The program of `my_services/NAME`. `-P`: the folder given by `environment` comes first."""
    return [sys.executable, "-P", "-m", f"my_services.{name}"]


def environment() -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join([str(folder().parent), str(paths.ROOT)]),
        # The byte-code cache takes two files of one size, written in one second, for the same.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def prepare(name: str) -> None:
    """Write `__main__.py` for the core files that are there. A person's own one is left alone.

    Raises `WorkshopError` when the learner has written nothing of this service.
    """
    core = course.core_of(name)
    if not core:
        raise WorkshopError(
            f"No lesson lets you write {name}.",
            "course.toml names those that do, under [lesson.core.NAME].",
        )
    here = folder() / name
    present = [file for file in core if (here / file).is_file()]
    own = here / "__main__.py"
    if own.is_file() and GENERATED not in own.read_text(encoding="utf-8"):
        return
    if not present:
        raise WorkshopError(
            f"my_services/{name} has none of {', '.join(core)}.",
            "Run the exercise's cell in the notebook; it writes the file.",
        )
    (here / "__init__.py").touch()
    own.write_text(main_text(name, present), encoding="utf-8")


def main_text(name: str, present: Sequence[str]) -> str:
    """The program around a learner's core: the reference's app with the learner's functions."""
    core = course.core_of(name)
    imports, arguments = [], []
    for file in present:
        for argument, function in core[file].items():
            imports.append(f"from .{file.removesuffix('.py')} import {function}")
            arguments.append(f"{argument}={function}")
    return (
        f'"""Your {name}: the reference\'s API around your core. This file is {GENERATED}."""\n\n'
        "from functools import partial\n\n"
        "from services.chassis import serve\n"
        f"from services.{name}.api import create_app\n"
        f"from services.{name}.settings import Settings\n\n"
        + "\n".join(sorted(imports))
        + f"\n\nserve(partial(create_app, {', '.join(arguments)}), Settings)\n"
    )
