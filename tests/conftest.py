"""The whole system, started once for the run, on free ports and in a home folder of its own.

As processes, or with `WORKSHOP_FORM=containers` in containers: the same tests run against both.
Without a Docker engine what needs one is skipped; `WORKSHOP_CONTAINERS=required` makes it fail.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import command, first_start
from workshop import client, containers, first_run, paths
from workshop import system as processes
from workshop.errors import WorkshopError

FORM = os.environ.get("WORKSHOP_FORM", "processes")
Step = Callable[..., containers.Containers]
Cli = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--service-url", help="base URL of the service that is held to its contract")


# With `pytest -n 2` each worker has a system of its own.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


ONE_SYSTEM = (
    "contract/",
    "faults/",
    "integration/",
    "notebooks/test_jupyterlab",
    "notebooks/test_solutions",
    "notebooks/test_stubs",
    "test_running",
)
"""One system for them all: it remembers what its model has written."""


PATIENT = {
    "orchestrator": {
        "ORCHESTRATOR_PREPROCESSING_TIMEOUT": "4",
        "ORCHESTRATOR_SEARCH_TIMEOUT": "8",
        "ORCHESTRATOR_RERANKING_TIMEOUT": "4",
        "ORCHESTRATOR_CONTEXT_TIMEOUT": "4",
        "ORCHESTRATOR_POST_PROCESSING_TIMEOUT": "4",
    },
    "hybrid_search": {"HYBRID_LIST_TIMEOUT": "6"},
    "gateway": {"GATEWAY_SEARCH_TIMEOUT": "10", "GATEWAY_RERANKING_TIMEOUT": "8"},
}
"""Beside other tests a stage may miss its time once, and that answer is not the usual one."""


class OneFormAWorker(LoadScopeScheduling):
    """What these tests need goes to one worker, what needs containers to one, and each of the
    other files to whom has time."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/containers/") or nodeid.endswith("[containers]"):
            return "containers"
        if nodeid.startswith(tuple(f"tests/{place}" for place in ONE_SYSTEM)):
            return "processes"
        return nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneFormAWorker | None:
    """For `--dist loadgroup`, whose groups pytest 9.2 does not let xdist write into a test's id."""
    return OneFormAWorker(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests recorded, whichever worker ran them: a section a name, a line or more a test."""
    sections: dict[str, list[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for title, text in report.user_properties:
                    sections.setdefault(title, []).append(text)
    for title, lines in sections.items():
        terminalreporter.section(title)
        terminalreporter.write_line("\n".join(lines))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fixed questions come first, for their answers are remembered, then the lessons, which
    ask them again. What breaks the system comes late: it leaves thousands of events behind.

    Containers come last: first of them the steps, which fill the stores that the others find, and
    at the end what breaks them.
    """
    for item in items:
        if FORM != "processes" and (marker := item.get_closest_marker("processes")):
            item.add_marker(pytest.mark.skip(f"the form of processes only: {marker.args[0]}"))
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.containers)
    items.sort(key=_place)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """While a test wants the processors to itself, the other worker begins no other.

    It waits outside of the test's own time, for the test that the other worker is at.
    """
    if not hasattr(item.config, "workerinput"):  # no worker of xdist, or begun by a test of one
        return (yield)
    import fcntl  # not on Windows

    path = paths.ROOT / ".workshop" / "tests.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        alone = item.get_closest_marker("alone")
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


def _place(item: pytest.Item) -> int:
    alone = bool(item.get_closest_marker("alone"))
    if item.get_closest_marker("containers") or item.path.parent.name == "containers":
        if item.get_closest_marker("faults"):
            return 9 + alone
        return 7 if item.path.name == "test_steps.py" else 8
    if item.get_closest_marker("faults"):
        return 5 + alone
    if item.get_closest_marker("solutions"):
        return 4 if item.name.endswith("[cache lost]") else 1
    return {"test_equivalence.py": 0, "test_jupyterlab.py": 2}.get(item.path.name, 3)


@pytest.fixture(scope="session")
def system_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="session")
def system_environment(system_home: Path) -> dict[str, str]:
    """What a `workshop` command needs to find this system, and no other."""
    return {"WORKSHOP_HOME": str(system_home), "WORKSHOP_MODELS_DIR": str(paths.models_dir())}


@pytest.fixture(scope="session")
def engine() -> Any:
    """A client of the Docker engine."""
    if building := os.environ.get("WORKSHOP_BUILDING"):  # .ci/run builds the images meanwhile
        while Path(building).exists():
            time.sleep(0.5)
    try:
        containers.compose_command()
        return containers.engine()
    except WorkshopError as error:
        if os.environ.get("WORKSHOP_CONTAINERS") == "required":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def at_step(
    engine: Any, system_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Step]:
    """Bring the containers of this run to a step of the course, or to the whole (None), with the
    settings of more compose files."""
    environment = dict(system_environment)
    if FORM != "containers":  # the processes of this run are beside them
        environment["WORKSHOP_HOME"] = str(tmp_path_factory.mktemp("containers"))
    base = processes.free_port_base(19500 + 3000 * WORKER)  # the processes take those below
    first_run.ensure_models()

    def bring(step: str | None, *more: Path) -> containers.Containers:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            llm = first_run.llm()
            return containers.start(base, step=step, dev=False, say=print, llm=llm, more=more)

    yield bring
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKSHOP_HOME", environment["WORKSHOP_HOME"])
        if here := containers.running():
            here.shutdown(volumes=True)


@pytest.fixture(scope="session")
def lab(at_step: Step) -> containers.Containers:
    """The whole system in containers, healthy, with what was stored at earlier steps, if any."""
    return at_step(None)


@pytest.fixture(scope="session")
def system(request: pytest.FixtureRequest) -> processes.System:
    """The workshop, every part ready: `.url(name)`, `.urls`, `.pids`."""
    form = {"processes": "running_processes", "containers": "lab"}[FORM]
    return request.getfixturevalue(form)


@pytest.fixture(scope="session")
def first_data() -> Path:
    """The stores as a first start leaves them. To be copied: no test may write here."""
    first_run.ensure_models()
    return first_start.data(processes.free_port_base(18000 + 3000 * WORKER))


@pytest.fixture(scope="session")
def running_processes(
    system_environment: dict[str, str], system_home: Path, first_data: Path
) -> Iterator[processes.System]:
    base = processes.free_port_base(18000 + 3000 * WORKER)
    shutil.copytree(first_data, system_home / "data")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in system_environment.items():
            patch.setenv(name, value)
        patch.setenv("WORKSHOP_STOP_WITH", str(os.getpid()))
        here = processes.start(base, first_run.model_settings())
        try:
            missing = [s for s in processes.wait_ready(here) if not s.ok]
            assert not missing, "\n".join(
                f"{s.name}: {s.reason or s.state}; {processes.last_log_line(s.name)}"
                for s in missing
            )
        except BaseException:
            processes.stop()
            raise
    yield here
    with pytest.MonkeyPatch.context() as patch:
        for name, value in system_environment.items():
            patch.setenv(name, value)
        processes.stop()


@pytest.fixture(scope="session")
def indexed(system: processes.System) -> processes.System:
    """The running system with the handbook in it: processes had it when they started."""
    report = asyncio.run(client.ingest(system.url(system.documents), client.handbook()))
    assert not report.failed, report.failed[:3]
    return system


@pytest.fixture(scope="module")
def patient(indexed: processes.System) -> Iterator[processes.System]:
    """The running system while its stages have more time than usual."""
    for name, settings in PATIENT.items():
        indexed.configure(name, settings)
        indexed.wait(name)
    yield indexed
    for name, settings in PATIENT.items():
        indexed.configure(name, dict.fromkeys(settings))
        indexed.wait(name)


@pytest.fixture(scope="session")
def cli(system_environment: dict[str, str]) -> Cli:
    """Run `workshop …` against the system of this run; gives what `subprocess.run` gives."""

    return partial(command.workshop, system_environment)
