"""What a test does differently to processes and to containers. All else goes through `System`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess

from aiohttp.abc import AbstractResolver, ResolveResult

from workshop import system as processes
from workshop.containers import Containers, engine

OWN_STORE = ("dense_retrieval", "sparse_retrieval")
"""Their stores are open to one process at a time: a second one cannot stand beside the first."""


def gateway(here: processes.System) -> tuple[str, AbstractResolver | None]:
    """Its URL, and who finds its address.

    Two containers cannot hold one published port, so it is asked where the containers are: their
    addresses, as they are now.
    """
    if isinstance(here, Containers):
        return "http://gateway:8000", _Addresses(here)
    return here.url("gateway"), None


async def kill(here: processes.System, name: str) -> None:
    """SIGKILL, and start again without the pause that a crash brings."""
    if isinstance(here, Containers):
        container = here.processes[name]["container"]
        await asyncio.to_thread(container.kill)
        await asyncio.to_thread(container.start)
        return
    pid = here.refresh().pids[name]
    os.kill(pid, signal.SIGKILL)
    for _ in range(500):
        if here.refresh().processes[name]["state"] == "waiting":
            here.start(name)
        if here.refresh().pids.get(name, pid) != pid:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name} was not started again")


async def renew(here: processes.System, name: str) -> None:
    """SIGTERM, and another one in its place: ready before the first is told to stop, where that is
    possible. The supervisor keeps the port of a process for the next one."""
    if isinstance(here, Containers) and name not in OWN_STORE:
        await asyncio.to_thread(_replace_container, here, name)
        return
    await asyncio.to_thread(here.restart, name)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(here.wait, name)


def _replace_container(here: Containers, name: str) -> None:
    old = here.processes[name]["container"]
    command = here._compose("up", "--detach", "--no-deps", "--no-build", "--no-recreate")
    done = subprocess.run(
        [*command, "--wait", "--scale", f"{name}=2", name],
        env=here._environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    old.stop(timeout=15)
    old.remove(v=True)


class _Addresses(AbstractResolver):
    """The running containers of a service, as Docker's DNS gives them inside their network."""

    def __init__(self, here: Containers) -> None:
        self._here, self._engine = here, engine()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.to_thread(self._of, host)
        if not found:
            raise OSError(f"no container of {host} runs")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    def _of(self, service: str) -> list[str]:
        project = f"com.docker.compose.project={self._here.state['project']}"
        labels = [project, f"com.docker.compose.service={service}"]
        running = self._engine.containers.list(sparse=True, filters={"label": labels})
        return [
            next(iter(container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
            for container in running
        ]

    async def close(self) -> None:
        pass
