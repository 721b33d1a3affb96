"""Some processes of the catalogue beside the whole system, with ports and stores of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from workshop import catalogue
from workshop import system as processes


@contextmanager
def processes_alone(
    home: Path, names: tuple[str, ...], settings: Mapping[str, str]
) -> Iterator[processes.System]:
    """`names` with their stores under `home`; `settings` win over what the catalogue says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKSHOP_HOME", str(home))
        patch.setenv("WORKSHOP_STOP_WITH", str(os.getpid()))
        base = processes.free_port_base(30000)
        plan = catalogue.plan(base, model_settings={}, broker_command=(), home=home)
        specs = [replace(spec, overrides=dict(settings)) for spec in plan if spec.name in names]
        here = processes.launch(specs, base)
        try:
            missing = [s.name for s in processes.wait_ready(here) if not s.ok]
            assert not missing, missing
            yield here
        finally:
            processes.stop()


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(1500):
        try:
            async with session.get(f"{url}/readyz") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.01)
    raise AssertionError(f"{url} does not get ready")
