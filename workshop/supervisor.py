"""The supervisor: one background process that starts, watches, restarts and stops all others.

Run as `python -m workshop.supervisor PLAN STATE`; `workshop.system` does that. It has one
thread and one loop, because it forks: a forked child of a process with threads may inherit a
lock that nobody will ever release. What every service imports is imported once, before the
first fork, so that a child starts in milliseconds and shares those memory pages.

It is told what to do over a loopback connection (see `_Control`), and writes what it knows to
the state file, which also names that connection's port and token.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import psutil
from setproctitle import setproctitle

from .catalogue import ProcessSpec
from .paths import ROOT, replace_file

PRELOAD: dict[int, tuple[str, ...]] = {
    1: (
        "aiohttp",
        "fastapi",
        "httptools",
        "numpy",
        "orjson",
        "prometheus_client",
        "pydantic.v1",
        "pydantic_settings",
        "services.chassis",
        "structlog",
        "tokenizers",
        "uvicorn.lifespan.on",
        "uvicorn.protocols.http.httptools_impl",
        "uvloop",
    ),
    3: (
        "faststream.nats",
        "services.chassis.broker",
        "services.chassis.events",
        "sqlalchemy",
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.orm",
    ),
}
"""What is imported before the first fork of a tier: models load while the rest is imported.

pydantic.v1 is there because FastAPI looks into it for each app: 5 MB in each process otherwise.
Nothing here may start a thread or an event loop (numpy's BLAS does not with
OPENBLAS_NUM_THREADS=1, which `workshop.system` sets).
"""

GRACE = float(os.environ.get("WORKSHOP_GRACE") or 15.0)
"""Seconds between SIGTERM and SIGKILL: longer than a service's `drain_timeout`."""
BACK_OFF = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before the next start of a process that ended by itself."""
STABLE = 60.0
"""A process that lived this long starts again with the shortest back-off."""
LOG_BYTES = 5_000_000
LOG_FILES = 3


class _Forked(BaseException):
    """Raised in a forked child: unwinds the supervisor's stack before the service runs."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec


class _Child:
    """A running process: forked, or started as a program of its own."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._popen = popen
        self.created = psutil.Process(pid).create_time()

    def poll(self) -> int | None:
        """Exit code (negative: the signal that ended it), or None while it runs."""
        if self._popen is not None:
            return self._popen.poll()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def send(self, signum: int) -> None:
        # Never reaches a stranger: the pid is ours until `poll` has reaped it.
        os.kill(self.pid, signum)


@dataclass
class _Process:
    spec: ProcessSpec
    original: ProcessSpec
    wanted: bool = True
    child: _Child | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    kill_at: float = float("inf")
    stopping: bool = False
    crashes: int = 0
    restarts: int = 0
    last_exit: str = ""
    handover: socket.socket | None = None
    """Where callers wait between a process that was told to stop and the one after it."""

    @property
    def state(self) -> str:
        if self.child is not None:
            return "stopping" if self.stopping else "running"
        return "waiting" if self.wanted else "stopped"

    def let_callers_go(self) -> None:
        if self.handover is not None:
            self.handover.close()
            self.handover = None

    def describe(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "pid": self.child.pid if self.child else None,
            "created": self.child.created if self.child else None,
            "port": self.spec.port,
            "url": self.spec.url,
            "ready": self.spec.ready,
            "tier": self.spec.tier,
            "runs": self.spec.module or " ".join(self.spec.command),
            "replaced": self.spec != self.original,
            "restarts": self.restarts,
            "crashes": self.crashes,
            "last_exit": self.last_exit,
        }


class Supervisor:
    def __init__(self, specs: list[ProcessSpec], state_file: Path, logs: Path, base: int) -> None:
        self.processes = {spec.name: _Process(spec, spec) for spec in specs}
        self.state_file = state_file
        self.logs = logs
        self.base = base
        self.fork = _can_fork()
        self.token = secrets.token_urlsafe(24)
        self.to_preload = dict(PRELOAD)
        self.closing = False
        self.log: IO[bytes] = open(logs / "supervisor.log", "ab", buffering=0)  # noqa: SIM115
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.wake_in, self.wake_out = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        self._last_rotation = 0.0
        self._owner = int(os.environ.get("WORKSHOP_STOP_WITH") or 0)

    def run(self) -> None:
        """Until told to stop. Raises `_Forked` in each child."""
        for end in (self.wake_in, self.wake_out):
            end.setblocking(False)
        signal.set_wakeup_fd(self.wake_out.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(self.wake_in, selectors.EVENT_READ)
        self.say(f"started, pid {os.getpid()}, {'fork' if self.fork else 'subprocess'}")
        self.write_state()
        while True:
            self.tick()
            if self.closing and all(p.child is None for p in self.processes.values()):
                break
            for key, _ in self.selector.select(self.next_timer()):
                if key.fileobj is self.wake_in:
                    self.wake_in.recv(4096)
                else:
                    self.answer()
        self.say("stopped")
        self.state_file.unlink(missing_ok=True)

    def stop(self) -> None:
        if not self.closing:
            self.say("stopping all processes")
        self.closing = True

    # -- the state of each process --------------------------------------------------------

    def tick(self) -> None:
        """Move every process one step towards what is wanted of it."""
        now = time.monotonic()
        if self._owner and not self.closing and not psutil.pid_exists(self._owner):
            self.stop()  # a test run that was killed leaves no system behind
        changed = False
        for process in self.processes.values():
            changed |= self.reap(process, now)
        if self.closing:
            alive = [p for p in self.processes.values() if p.child is not None]
            highest = max((p.spec.tier for p in alive), default=0)
            for process in self.processes.values():
                process.wanted = False
            for process in alive:
                if process.spec.tier == highest:
                    changed |= self.terminate(process, now)
        for process in self.processes.values():
            if process.child is not None:
                if not process.wanted:
                    changed |= self.terminate(process, now) if not self.closing else False
                if process.stopping and now >= process.kill_at:
                    self.say(f"{process.spec.name}: did not stop in {GRACE:g} s, killed")
                    process.child.send(signal.SIGKILL)
                    process.kill_at = now + GRACE
            elif process.wanted and now >= process.start_at:
                self.start(process, now)
                changed = True
        if changed:
            self.write_state()
        if now - self._last_rotation > 5:
            self._last_rotation = now
            for path in self.logs.glob("*.log"):
                rotate(path)

    def next_timer(self) -> float:
        """Seconds until something is due without any signal or command."""
        now = time.monotonic()
        due = now + 5.0
        for process in self.processes.values():
            if process.child is None and process.wanted:
                due = min(due, process.start_at)
            if process.stopping:
                due = min(due, process.kill_at)
        return max(0.0, due - now)

    def reap(self, process: _Process, now: float) -> bool:
        if process.child is None or (code := process.child.poll()) is None:
            return False
        name = process.spec.name
        process.last_exit = _exit_text(code)
        process.child = None
        process.kill_at = float("inf")
        if process.stopping:
            process.stopping = False
            process.start_at = now
            self.say(f"{name}: stopped ({process.last_exit})")
        else:
            lived = now - process.started_at
            process.crashes = 1 if lived > STABLE else process.crashes + 1
            pause = BACK_OFF[min(process.crashes, len(BACK_OFF)) - 1]
            process.start_at = now + pause
            process.restarts += 1
            self.say(f"{name}: ended ({process.last_exit}) after {lived:.1f} s, next try {pause} s")
        return True

    def terminate(self, process: _Process, now: float) -> bool:
        if process.child is None or process.stopping:
            return False
        process.stopping = True
        process.kill_at = now + GRACE
        process.child.send(signal.SIGTERM)
        return True

    def start(self, process: _Process, now: float) -> None:
        spec = process.spec
        process.started_at = now
        handover, process.handover = process.handover, None
        try:
            if self.fork and spec.module:
                process.child = self.start_fork(spec, handover)
            else:
                process.child = self.start_program(spec, handover)
        except OSError as error:  # no memory, no such program: try again later, and say so
            process.last_exit = f"could not start: {error}"
            process.crashes += 1
            process.start_at = now + BACK_OFF[min(process.crashes, len(BACK_OFF)) - 1]
            self.say(f"{spec.name}: {process.last_exit}")
            return
        finally:
            if handover is not None:
                handover.close()
        self.say(f"{spec.name}: started, pid {process.child.pid}")

    def preload(self, tier: int) -> None:
        """Import what is shared from `tier` down, once.

        As the documentation of gc.freeze() advises for a fork without exec, nothing is collected
        before it: no page gets holes that a child would then fill, and so copy.
        """
        for level in [level for level in self.to_preload if level <= tier]:
            gc.disable()
            for module in self.to_preload.pop(level):
                importlib.import_module(module)
            gc.freeze()

    def start_fork(self, spec: ProcessSpec, handover: socket.socket | None) -> _Child:
        self.preload(spec.tier)
        pid = os.fork()
        if pid:
            return _Child(pid)
        if handover is not None:
            spec = replace(spec, overrides={**spec.overrides, "LISTEN_FD": str(handover.detach())})
        raise _Forked(spec)

    def start_program(self, spec: ProcessSpec, handover: socket.socket | None) -> _Child:
        passed = {} if handover is None else {"LISTEN_FD": str(handover.fileno())}
        command = list(spec.command) or [sys.executable, "-m", spec.module]
        with open(self.logs / f"{spec.name}.log", "ab", buffering=0) as log:
            popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=spec.full_environment() | passed,
                pass_fds=tuple(int(number) for number in passed.values()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return _Child(popen.pid, popen)

    # -- commands -------------------------------------------------------------------------

    def answer(self) -> None:
        """One command: a line of JSON with the token in, a line of JSON out."""
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return
        with connection:
            connection.settimeout(2.0)
            try:
                with connection.makefile("rwb") as stream:
                    request = json.loads(stream.readline(1_000_000) or b"null")
                    reply = self.obey(request)
                    stream.write(json.dumps(reply).encode() + b"\n")
            except (OSError, ValueError) as error:
                self.say(f"control: unreadable command ({error})")

    def obey(self, request: Any) -> dict[str, Any]:
        if not isinstance(request, dict) or not secrets.compare_digest(
            str(request.get("token", "")).encode(), self.token.encode()
        ):
            return {"ok": False, "error": "wrong token"}
        command, name = request.get("do"), request.get("name")
        if command == "shutdown":
            self.stop()
            return {"ok": True}
        process = self.processes.get(str(name))
        if process is None:
            return {"ok": False, "error": f"there is no process named {name}"}
        if command == "replace":
            try:
                spec = process.original.replaced(
                    module=str(request.get("module") or ""),
                    command=[str(part) for part in request.get("command") or ()],
                    env={str(k): str(v) for k, v in (request.get("env") or {}).items()},
                )
            except (AttributeError, TypeError) as error:
                return {"ok": False, "error": f"replace: {error}"}
            if bool(spec.module) == bool(spec.command):
                return {"ok": False, "error": "replace wants either a module or a command"}
            process.spec = spec
        elif command == "restore":
            process.spec = process.original
        elif command == "configure":
            process.spec = process.spec.configured(request.get("env") or {}, process.original)
        elif command not in ("restart", "start", "stop"):
            return {"ok": False, "error": f"unknown command {command}"}
        self.say(f"{name}: {command}")
        now = time.monotonic()
        process.wanted = command != "stop"
        process.crashes = 0
        process.let_callers_go()
        goes_on = command in ("restart", "configure") and process.child is not None
        if goes_on and process.spec.module:
            process.handover = _beside(process.spec.port)
        if command != "start":
            self.terminate(process, now)
        process.start_at = now
        self.tick()
        self.write_state()  # what is wanted has changed, even where nothing has happened yet
        return {"ok": True, **process.describe()}

    # -- what others see ------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "created": psutil.Process().create_time(),
            "base": self.base,
            "file": str(self.state_file),
            "closing": self.closing,
            "processes": {name: p.describe() for name, p in self.processes.items()},
        }

    def write_state(self) -> None:
        control = {"port": self.listener.getsockname()[1], "token": self.token}
        text = json.dumps({**self.describe(), "control": control}, indent=1)
        replace_file(self.state_file, text, mode=0o600)

    def say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        self.log.write(f"{stamp} {text}\n".encode())

    def let_go(self) -> None:
        """In a forked child: close what belongs to the supervisor alone."""
        signal.set_wakeup_fd(-1)
        self.selector.close()
        for end in (self.listener, self.wake_in, self.wake_out, self.log):
            end.close()
        for process in self.processes.values():
            process.let_callers_go()


def _beside(port: int | None) -> socket.socket | None:
    """A second listener on a port, where the process that has it allows one: callers that come
    while it ends wait there for the next process, and are not refused."""
    if port is None or not hasattr(socket, "SO_REUSEPORT"):
        return None
    listener = socket.socket()
    try:
        # The first is inherited by what it accepts: without it, connections that ended a moment
        # ago would keep the port from the next process that binds it for itself.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
    except OSError:
        listener.close()
        return None
    return listener


def _can_fork() -> bool:
    """Linux only: on macOS the system's own libraries do not survive a fork without exec."""
    wish = os.environ.get("WORKSHOP_START", "")
    if wish in ("fork", "subprocess"):
        return wish == "fork"
    return sys.platform == "linux"


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def rotate(path: Path, limit: int = LOG_BYTES, keep: int = LOG_FILES) -> None:
    """Move a log that grew over `limit` bytes to `.1` (`.1` to `.2`, …) and empty it.

    The writers keep their open file: it is copied and truncated, as logrotate's `copytruncate`
    does, and they append, so that no hole is left.
    """
    if not path.exists() or path.stat().st_size <= limit:
        return
    for number in range(keep - 1, 0, -1):
        older = path.with_suffix(f".log.{number}")
        if older.exists():
            older.replace(path.with_suffix(f".log.{number + 1}"))
    shutil.copyfile(path, path.with_suffix(".log.1"))
    os.truncate(path, 0)


def _become(spec: ProcessSpec, logs: Path) -> None:
    """Turn this forked process into the service: its environment, its log, its module."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    log = os.open(logs / f"{spec.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(spec.full_environment())
    setproctitle(f"workshop: {spec.name}")
    gc.enable()
    runpy.run_module(spec.module, run_name="__main__", alter_sys=True)


def main(plan_file: str, state_file: str) -> None:
    os.chdir(ROOT)
    plan = json.loads(Path(plan_file).read_text())
    specs = [ProcessSpec.from_json(item) for item in plan["processes"]]
    logs = Path(plan["logs"])
    setproctitle("workshop: supervisor")
    supervisor = Supervisor(specs, Path(state_file), logs, plan["base"])
    try:
        supervisor.run()
        return
    except _Forked as forked:
        spec = forked.spec
        supervisor.let_go()
    del supervisor
    _become(spec, logs)


if __name__ == "__main__":
    main(*sys.argv[1:3])
