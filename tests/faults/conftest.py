"""Faults on purpose, on the running system. Each test prints a line of the table at the end:

pytest tests/faults
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import pytest

from tests.faults.llm import ScriptedModel, scripted_model
from workshop import catalogue
from workshop import system as processes
from workshop.fault_proxy import FaultProxy

Row = Callable[..., None]
_rows: list[tuple[str, str]] = []


@pytest.fixture
def row() -> Row:
    """Add a line to the table: what was broken, and the figures that came of it."""

    def add(fault: str, **figures: object) -> None:
        _rows.append((fault, ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in figures.items())))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _rows:
        busy = f"{os.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}"
        terminalreporter.section(f"faults ({busy})")
        width = max(len(fault) for fault, _ in _rows)
        for fault, figures in _rows:
            terminalreporter.write_line(f"{fault:<{width}}  {figures}")


@pytest.fixture(scope="session")
def model() -> Iterator[ScriptedModel]:
    with scripted_model() as model:
        yield model


@asynccontextmanager
async def routed(
    here: processes.System, name: str, settings: Mapping[str, str]
) -> AsyncIterator[None]:
    """`name` runs with other settings, such as the address of a proxy, and is restored after."""
    before = dict(_SETTINGS.get(name, {}))

    async def run_with(env: dict[str, str]) -> None:
        await asyncio.to_thread(here.replace, name, module=f"services.{name}", env=env)
        await asyncio.to_thread(here.wait, name)

    await run_with(before | dict(settings))
    try:
        yield
    finally:
        await run_with(before)


@asynccontextmanager
async def proxied(here: processes.System, name: str) -> AsyncIterator[dict[str, FaultProxy]]:
    """A proxy before each service that `name` calls, by the service's name."""
    entry = next(entry for entry in catalogue.CATALOGUE if entry.name == name)
    calls = {s: target for s, target in entry.calls.items() if target in catalogue.SERVICES}
    async with AsyncExitStack() as stack:
        proxies = {
            target: await stack.enter_async_context(FaultProxy(here.url(target)))
            for target in calls.values()
        }
        settings = {entry.prefix + s: proxies[target].url for s, target in calls.items()}
        await stack.enter_async_context(routed(here, name, settings))
        yield proxies


_SETTINGS: dict[str, dict[str, str]] = {}
"""What each service of `whole` is told beside its defaults."""


@pytest.fixture(scope="session")
def whole(indexed: processes.System, model: ScriptedModel) -> Iterator[processes.System]:
    """The indexed system, its answers written by `model`, its gateway without limits a caller."""
    _SETTINGS["generation"] = {"GENERATION_LLM_URL": model.url, "GENERATION_CONCURRENCY": "64"}
    _SETTINGS["gateway"] = {"GATEWAY_RATE_LIMIT": "off", "GATEWAY_DAILY_QUOTA": "off"}
    for name, settings in _SETTINGS.items():
        indexed.replace(name, module=f"services.{name}", env=settings)
    try:
        for name in _SETTINGS:
            indexed.wait(name)
        yield indexed
    finally:
        for name in indexed.processes:
            if indexed.refresh().processes[name]["replaced"]:
                indexed.restore(name)
                indexed.wait(name)
