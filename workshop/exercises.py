"""The checks of a lesson: its exercises', and the contract of the service they make.

An exercise's checks are functions in `lessons/checks/NN_slug.py` that take the learner's module:

    @check("05.1", "hybrid_search", "core.py")
    def ranks_start_at_one(core):
        \"\"\"The first place of a list is rank 1.\"\"\"
        assert ..., "what is wrong, and what to look at"

They run in a process of their own, on the saved file: a loop that never ends cannot take the
notebook with it, and what is checked is what will be served.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from types import ModuleType

from . import course, my_services, paths
from .course import Lesson
from .errors import WorkshopError

PATIENCE = 20.0
"""Seconds for one exercise's checks together; each takes milliseconds."""
CONTRACT_PATIENCE = 120.0
CheckFunction = Callable[[ModuleType], None]


@dataclass(frozen=True, slots=True)
class Result:
    """One check. `message` says what is wrong and what to look at; empty when green."""

    part: str
    title: str
    message: str = ""

    @property
    def green(self) -> bool:
        return not self.message

    def __str__(self) -> str:
        return shown([self])


@dataclass(frozen=True, slots=True)
class Check:
    exercise: str
    service: str
    file: str
    title: str
    run: CheckFunction


def shown(results: Sequence[Result]) -> str:
    """A line a check, and below it why it is red; what several in a row share, below the last."""
    lines = []
    for result, after in zip_longest(results, results[1:]):
        colour = "green" if result.green else "RED  "
        lines.append(f"{result.part:<9} {colour}  {result.title}")
        if result.message and (after is None or after.message != result.message):
            lines.append(f"{'':<9}        {result.message}")
    return "\n".join(lines)


def check(exercise: str, service: str, file: str) -> Callable[[CheckFunction], CheckFunction]:
    """Mark a function as a check of `exercise` on `my_services/SERVICE/FILE`."""

    def mark(function: CheckFunction) -> CheckFunction:
        title = (function.__doc__ or "").strip().splitlines()
        if not title:
            raise WorkshopError(
                f"The check {function.__name__} has no docstring.", "Its first line is its title."
            )
        function.check = Check(  # type: ignore[attr-defined]
            exercise, service, file, title[0].rstrip("."), function
        )
        return function

    return mark


def load_module(path: Path, name: str) -> ModuleType:
    """Run a file as a module, anew each time.

    Without the import system's byte-code cache: it takes two files of the same size, written in
    the same second, for one.
    """
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses and annotations look their module up by name
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    return module


def checks_of(lesson: Lesson) -> list[Check]:
    """In the order of their definition; [] for a lesson without exercises."""
    if not lesson.checks.exists():
        return []
    module = load_module(lesson.checks, f"lesson_checks_{lesson.number}")
    return [value.check for value in vars(module).values() if hasattr(value, "check")]


def exercises_of(lesson: Lesson) -> list[str]:
    return sorted({check.exercise for check in checks_of(lesson)})


# -- the exercises ------------------------------------------------------------------------


def run_checks(checks: list[Check], folder: Path) -> Iterator[Result]:
    """Run checks in this process on the files of `folder` (a `my_services`)."""
    modules: dict[Path, ModuleType | str] = {}
    for item in checks:
        path = folder / item.service / item.file
        if path not in modules:
            modules[path] = _import(path, item)
        module = modules[path]
        message = module if isinstance(module, str) else _outcome(item, module)
        yield Result(item.exercise, item.title, message)


def _import(path: Path, item: Check) -> ModuleType | str:
    name = my_services.label(item.service, item.file)
    if not path.is_file():
        return f"{name} is not there yet: run the cell of exercise {item.exercise}."
    try:
        return load_module(path, f"learner_{item.service}_{path.stem}")
    except Exception as error:  # noqa: BLE001
        return f"{name} cannot be imported: {_say(error, path)}"


def _outcome(item: Check, module: ModuleType) -> str:
    try:
        item.run(module)
    except NotImplementedError as error:
        return f"not written yet: {error}"
    except AssertionError as error:
        return str(error).splitlines()[0] if str(error) else "the result is not the expected one"
    except Exception as error:  # noqa: BLE001
        return _say(error, Path(module.__file__ or ""))
    return ""


def _say(error: Exception, path: Path) -> str:
    """The error with the learner's own line, which is where to look."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f" ({path.name}, line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


def run_apart(lesson: Lesson, exercise: str | None = None) -> list[Result]:
    """The exercises' checks, each exercise in a process of its own, within `PATIENCE` seconds."""
    checks: dict[str, list[Check]] = {}
    for item in checks_of(lesson):
        checks.setdefault(item.exercise, []).append(item)
    if exercise and exercise not in checks:
        raise WorkshopError(
            f"Lesson {lesson.number} has no exercise {exercise}.",
            f"It has {', '.join(sorted(checks)) or 'none'}.",
        )
    wanted = [exercise] if exercise else sorted(checks)
    with ThreadPoolExecutor() as at_once:
        found = at_once.map(lambda number: _one_apart(lesson, number, checks[number]), wanted)
        return list(chain(*found))


def _one_apart(lesson: Lesson, number: str, checks: Sequence[Check]) -> list[Result]:
    command = [sys.executable, "-m", "workshop.exercises", lesson.number, number]
    try:
        done = subprocess.run(
            command,
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        output, why = done.stdout, f"The process ended: {(done.stderr.strip() or '?')[-200:]}"
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode() if isinstance(error.stdout, bytes) else ""
        why = f"not done within {PATIENCE:g} s. Look for a loop or a wait that never ends."
    found = [Result(**json.loads(line)) for line in output.splitlines() if line[:1] == "{"]
    return found + [Result(number, item.title, why) for item in checks[len(found) : len(found) + 1]]


# -- the contract -------------------------------------------------------------------------


def run_contract(
    service: str, url: str, *, first_red: bool = False, patience: float = 10.0
) -> list[Result]:
    """The contract tests of `service` against any address: those that the reference passes.

    With `first_red` it ends at the first red one: a service that hangs costs one timeout, of
    `patience` seconds.
    """
    suite = paths.ROOT / "tests" / "contract" / f"test_{service}_contract.py"
    if not suite.exists():
        raise WorkshopError(f"{service} has no contract tests.")
    with tempfile.TemporaryDirectory(prefix="workshop-contract-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(suite), "--service-url", url]
        command += ["--junitxml", str(report), "--timeout", f"{patience:g}"]
        command += ["-p", "no:cacheprovider", "-q"]
        # Every plugin that is installed would be loaded, which takes longer than most contracts.
        command += ["-p", "pytest_timeout", "-p", "pytest_asyncio.plugin"]
        # A notebook's kernel asks its children for colours; in a message they are noise.
        command += ["--color", "no"]
        command += ["--maxfail", "1"] if first_red else []
        try:
            done = subprocess.run(
                command,
                cwd=paths.ROOT,
                capture_output=True,
                text=True,
                timeout=CONTRACT_PATIENCE * patience / 10,
                check=False,
                env={**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            )
        except subprocess.TimeoutExpired as error:
            why = f"not done within {error.timeout:g} s: the service does not answer."
            return [Result("contract", service, why)]
        if not report.exists():
            raise WorkshopError(
                f"The contract tests of {service} did not run.", done.stdout[-500:] + done.stderr
            )
        return [_case(case) for case in ElementTree.parse(report).getroot().iter("testcase")]


def _case(case: ElementTree.Element) -> Result:
    title = str(case.get("name")).removeprefix("test_").replace("_", " ")
    found = [case.find(kind) for kind in ("failure", "error")]
    bad = next((item for item in found if item is not None), None)
    if bad is None:
        return Result("contract", title)
    said = " ".join(str(bad.get("message") or "failed").split())
    return Result("contract", title, said if len(said) <= 300 else said[:300] + " …")


def main(number: str, exercise: str) -> None:
    """Results as lines of JSON on standard output; what the learner prints goes to the other."""
    output, sys.stdout = sys.stdout, sys.stderr
    checks = [item for item in checks_of(course.find(number)) if item.exercise == exercise]
    for result in run_checks(checks, my_services.folder()):
        print(json.dumps(asdict(result)), file=output, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
