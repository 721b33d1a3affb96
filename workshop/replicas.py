"""Several copies of a service behind its own address: `workshop scale NAME COUNT`.

`python -m workshop.replicas NAME COUNT [PICK]` takes the service's place under the supervisor. It
starts the copies on free ports, starts again what ends, and balances the calls over those that are
ready. `PICK` is a file with a function `pick`, in the place of the balancer's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from . import catalogue, exercises, paths, system
from .balancer import Pick, Replica, create_app, two_choices
from .errors import WorkshopError

STATELESS = ("embedding", "hybrid_search", "context_aggregation", "generation", "post_processing")
"""What may be copied as it is: these keep no data, so that any copy can answer any call."""
MOST = 8
_READY_PATIENCE = 60.0
_PROBE_EVERY = 0.25
_MISSES = 3
"""Probes in a row that a copy may miss: on a busy machine a late answer does not mean that it is
gone, and if all were late at once there would be nobody left to ask."""
_STOP_PATIENCE = 12.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def scale(name: str, count: int, *, pick: Path | None = None, **settings: object) -> None:
    """Run `count` copies of a service of the running system; 1 without `settings`: as it was.

    `settings` are the copies' own, by the names of their `settings.py`; `pick` is a file with the
    balancer's `pick`. Returns when every copy is ready; if one is not, the service comes back.
    """
    here = system.require_running()
    _refuse(here, name, count)
    if pick is not None and not pick.is_file():
        raise WorkshopError(f"There is no {pick.name} yet.", "Run the cell that saves it.")
    if count == 1 and not settings and pick is None:
        here.restore(name)
        here.wait(name)
        return
    prefix, before = catalogue.entry_of(name).prefix, here.refresh().pids.get(name)
    command = [sys.executable, "-m", "workshop.replicas", name, str(count)]
    here.replace(
        name,
        command=command + ([str(pick)] if pick else []),
        env={f"{prefix}{key}".upper(): str(value) for key, value in settings.items()},
    )
    try:
        _wait(here, name, count, before)
    except BaseException:
        here.restore(name)
        here.wait(name)
        raise


def replicas_of(url: str) -> list[dict[str, Any]]:
    """What the balancer at `url` tells of its replicas: `url`, `pid`, `up`, `calls`, `ended`."""
    with urllib.request.urlopen(f"{url}/replicas", timeout=5) as answer:
        return list(json.load(answer))


def _refuse(here: system.System, name: str, count: int) -> None:
    if "project" in here.state:
        raise WorkshopError(
            "`workshop scale` is for processes, and containers run.",
            "`docker compose --profile scale` adds a second replica of embedding and reranking.",
        )
    here.url(name)  # says which names there are
    if name not in STATELESS:
        why = (
            f"{name} is none of the services"
            if name not in catalogue.SERVICES
            else (f"{name} keeps data, and a copy of its process is no copy of that")
        )
        raise WorkshopError(f"{why}.", f"These can be copied: {', '.join(STATELESS)}.")
    if not 1 <= count <= MOST:
        raise WorkshopError(f"{count} copies cannot be run here.", f"Choose 1 to {MOST}.")


def _wait(here: system.System, name: str, count: int, before: int | None) -> None:
    """Until as many copies are up, behind another process than `before`, which still drains."""
    end = time.monotonic() + _READY_PATIENCE
    while time.monotonic() < end:
        process = here.refresh().processes[name]
        if process["crashes"] > 1:
            break
        with contextlib.suppress(OSError, ValueError):
            found = replicas_of(here.url(name)) if process["pid"] not in (None, before) else []
            if sum(replica["up"] for replica in found) == count:
                return
            if any(replica["ended"] > 1 for replica in found):
                break
        time.sleep(0.05)
    raise WorkshopError(
        f"The {count} copies of {name} did not get ready.", f"See `workshop logs {name}`."
    )


# -- the program --------------------------------------------------------------------------


def _end_with_parent() -> None:
    """Linux: the copies of a balancer that is killed end with it."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


async def _keep(name: str, prefix: str, replica: Replica, session: aiohttp.ClientSession) -> None:
    """Run one copy for good: start it, watch its readiness, start it again when it ends."""
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"services.{name}",
            env={**os.environ, f"{prefix}PORT": replica.url.rpartition(":")[2]},
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        replica.pid, missed = process.pid, 0
        try:
            while process.returncode is None:
                ready = await _ready(session, replica.url)
                missed = 0 if ready else missed + 1
                replica.up = ready or (replica.up and missed < _MISSES)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _PROBE_EVERY)
        finally:
            replica.up = False
            replica.ended += 1
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), _STOP_PATIENCE)
                except TimeoutError:
                    process.kill()
        await asyncio.sleep(1.0)  # one that ends at once must not keep a core busy


async def _ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _load_pick(file: str) -> Pick:
    pick: Pick = exercises.load_module(Path(file), "learner_pick").pick
    return pick


def main(name: str, count: str, pick: str = "") -> None:
    prefix = catalogue.entry_of(name).prefix
    replicas = [Replica(f"http://127.0.0.1:{system.free_port()}") for _ in range(int(count))]

    async def keep_all(_: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
            tasks = [asyncio.create_task(_keep(name, prefix, r, session)) for r in replicas]
            yield
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = create_app(replicas, pick=_load_pick(pick) if pick else two_choices)
    app.cleanup_ctx.append(keep_all)
    os.chdir(paths.ROOT)
    web.run_app(
        app,
        host=os.environ.get(f"{prefix}HOST", "127.0.0.1"),
        port=int(os.environ[f"{prefix}PORT"]),
        print=None,
        access_log=None,
        shutdown_timeout=5.0,
    )


if __name__ == "__main__":
    main(*sys.argv[1:4])
