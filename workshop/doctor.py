"""`workshop doctor`: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
from packaging.markers import Marker
from rich.text import Text

from . import catalogue, first_run, paths, system
from . import models as files
from .errors import WorkshopError

OK, HINT, FAIL = 0, 1, 2
_SIGNS = {OK: ("ok  ", "green"), HINT: ("note", "yellow"), FAIL: ("fix ", "red")}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;\s*(.+))?$")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. FAIL: the system cannot run. HINT: it runs, with less."""

    name: str
    severity: int
    text: str

    def line(self) -> Text:
        sign, style = _SIGNS[self.severity]
        return Text.assemble((sign, style), f"  {self.name:<9} ", self.text)


def run() -> Iterator[Check]:
    """Every check, one after the other, as it is done."""
    checks: tuple[Callable[[], Check], ...] = (
        python,
        packages,
        cores,
        memory,
        disk,
        ports,
        models,
        state,
        browser,
    )
    for check in checks:
        yield check()


def python() -> Check:
    version = platform.python_version()
    if sys.version_info >= (3, 15):
        return Check("Python", HINT, f"{version} is newer than what was tried (3.11 to 3.14)")
    return Check("Python", OK, version)


def locked() -> dict[str, str]:
    """Package name (normalised) to version, for this Python and this platform."""
    found = {}
    for line in (paths.ROOT / "requirements.lock").read_text().splitlines():
        if (pin := _PIN.match(line)) and (pin[3] is None or Marker(pin[3]).evaluate()):
            found[normalise(pin[1])] = pin[2]
    return found


def normalise(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages() -> Check:
    installed = {
        normalise(d.metadata["Name"]): d.version.split("+")[0]
        for d in importlib.metadata.distributions()
    }
    wanted = locked()
    missing = [name for name in wanted if name not in installed]
    other = [n for n, v in wanted.items() if n in installed and installed[n] != v.split("+")[0]]
    if missing == ["torch"]:
        return Check(
            "packages",
            HINT,
            "torch is missing: sentence-transformers and `workshop train-reranker` need it; "
            "`python3 workshop/bootstrap.py --force` tries again",
        )
    if missing:
        return Check("packages", FAIL, f"missing: {_some(missing)}; run `make lab`")
    if other:
        return Check(
            "packages", HINT, f"other versions than requirements.lock: {_some(other)}; `make lab`"
        )
    return Check("packages", OK, f"{len(wanted)}, as requirements.lock says")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def cores() -> Check:
    count = len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else psutil.cpu_count()
    if (count or 1) < 2:
        return Check("cores", HINT, "one: answers take about twice as long as on two")
    return Check("cores", OK, str(count))


def memory() -> Check:
    free = psutil.virtual_memory().available / 1e9
    if free < 1.5 and system.running() is None:
        return Check("memory", FAIL, f"{free:.1f} GB available, 1.5 GB needed: close programs")
    if free < 3 and system.running() is None:
        return Check("memory", HINT, f"{free:.1f} GB available: enough for the small model")
    return Check("memory", OK, f"{free:.1f} GB available")


def disk() -> Check:
    folder = paths.home()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < 1:
        return Check(
            "disk", FAIL, f"{free:.1f} GB free at {folder}: free some, or set WORKSHOP_HOME"
        )
    return Check("disk", OK if free > 3 else HINT, f"{free:.1f} GB free at {folder}")


def ports() -> Check:
    here = system.running()
    if here is not None:
        return Check("ports", OK, f"the workshop runs at {here.url('gateway')}")
    base = catalogue.default_port_base()
    try:
        system.check_ports(base)
    except WorkshopError as error:
        return Check("ports", FAIL, str(error))
    return Check("ports", OK, f"{base} to {base + 21} are free")


def models() -> Check:
    try:
        missing = [name for name in first_run.needed_models() if not files.is_present(name)]
    except files.ModelError as error:
        return Check("models", FAIL, str(error))
    if missing:
        return Check("models", HINT, f"not here yet: {_some(missing)}; `workshop up` fetches them")
    return Check("models", OK, f"all in {paths.models_dir()}")


def state() -> Check:
    if system.running() is None and system.state_file().exists():
        return Check(
            "state", HINT, "the last system was not stopped; `workshop down` cleans up after it"
        )
    return Check("state", OK, "nothing is left over")


def browser() -> Check:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Check("browser", OK, f"{found} (for the tests of the page)")
    return Check("browser", HINT, "no chromium: the tests of the page are skipped")
