"""Faults on purpose, on the running system. Each test prints a line of the table at the end:

    pytest tests/faults

Some are made in containers as well, where there is a Docker engine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.faults.llm import ScriptedModel, scripted_model
from tests.pages import some_pages
from workshop import catalogue, client
from workshop import system as processes
from workshop.containers import Containers
from workshop.fault_proxy import FaultProxy

Row = Callable[..., None]


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Row:
    """Add a line to the table: what was broken, and the figures that came of it."""

    def add(fault: str, **figures: object) -> None:
        figures["load"] = f"{psutil.getloadavg()[0]:.1f}"
        text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        record_property(f"faults, {os.cpu_count()} cores", f"{fault:<36}  {text}")

    return add


@pytest.fixture(scope="session")
def model() -> Iterator[ScriptedModel]:
    with scripted_model() as model:
        yield model


@asynccontextmanager
async def routed(here: processes.System, **settings: Mapping[str, str]) -> AsyncIterator[None]:
    """Services, by name, run with other settings, such as the address of a proxy."""

    async def run_with(name: str, env: Mapping[str, str]) -> None:
        await asyncio.to_thread(
            here.replace, name, module=f"services.{name}", env=_SETTINGS.get(name, {}) | dict(env)
        )
        await asyncio.to_thread(here.wait, name)

    await asyncio.gather(*(run_with(name, env) for name, env in settings.items()))
    try:
        yield
    finally:
        await asyncio.gather(*(run_with(name, {}) for name in settings))


@asynccontextmanager
async def proxied(
    here: processes.System, *names: str, **more: Mapping[str, str]
) -> AsyncIterator[dict[tuple[str, str], FaultProxy]]:
    """A proxy on each hop from a service of `names` to another, by the names of the two.

    `more` are settings beside, as for `routed`.
    """
    settings = {name: dict(env) for name, env in more.items()}
    proxies: dict[tuple[str, str], FaultProxy] = {}
    async with AsyncExitStack() as stack:
        for entry in catalogue.CATALOGUE:
            for setting, target in entry.calls.items():
                if entry.name in names and target in catalogue.SERVICES:
                    proxy = await stack.enter_async_context(FaultProxy(here.url(target)))
                    proxies[entry.name, target] = proxy
                    settings.setdefault(entry.name, {})[entry.prefix + setting] = proxy.url
        await stack.enter_async_context(routed(here, **settings))
        yield proxies


_SETTINGS: dict[str, dict[str, str]] = {}
"""What each service of `whole` is told beside its defaults."""


def _index(here: processes.System) -> None:
    report = asyncio.run(client.ingest(here.url(here.documents), some_pages()))
    assert not report.failed, report.failed[:3]


@pytest.fixture(scope="session")
def whole(running_processes: processes.System, model: ScriptedModel) -> Iterator[processes.System]:
    """The system with some pages in it, its answers written by `model`, its gateway without limits
    a caller."""
    _SETTINGS["generation"] = {"GENERATION_LLM_URL": model.url, "GENERATION_CONCURRENCY": "64"}
    _SETTINGS["gateway"] = {"GATEWAY_RATE_LIMIT": "off", "GATEWAY_DAILY_QUOTA": "off"}
    system = running_processes
    _index(system)
    for name, settings in _SETTINGS.items():
        system.replace(name, module=f"services.{name}", env=settings)
    try:
        for name in _SETTINGS:
            system.wait(name)
        yield system
    finally:
        for name in system.processes:
            if system.refresh().processes[name]["replaced"]:
                system.restore(name)
                system.wait(name)


@pytest.fixture(scope="session")
def whole_in_containers(lab: Containers) -> Containers:
    """The same of containers; see `compose.yaml` beside this file."""
    lab.state["files"].append(str(Path(__file__).with_name("compose.yaml")))
    changed = ("llm_server", "generation", "gateway", "ingestion_worker")
    command = lab._compose("up", "--detach", "--wait", "--no-build", *changed)
    subprocess.run(command, env=lab._environment(), check=True)
    _index(lab)
    return lab


@pytest.fixture(
    scope="session",
    params=["processes", pytest.param("containers", marks=pytest.mark.containers)],
)
def either(request: pytest.FixtureRequest) -> processes.System:
    """`whole` as processes, then as containers."""
    form = {"processes": "whole", "containers": "whole_in_containers"}[request.param]
    return request.getfixturevalue(form)
