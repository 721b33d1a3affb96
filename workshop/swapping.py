"""A learner's service: alone on a free port, or in the running system in place of the reference."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from . import catalogue, exercises, my_services, paths, system
from .errors import WorkshopError

START_PATIENCE = 30.0
"""Seconds that a learner's service gets to be ready."""
RESTORE_PATIENCE = 60.0
"""A service that hangs is killed after the supervisor's grace; then the reference starts."""
_STOP_PATIENCE = 12.0
_LOG_LINES = 5


class Served:
    """`my_services/NAME` in a process of its own. `str()` and `with` give its base URL.

    It ends with `stop`, with the last reference to this object, and with the notebook's kernel.
    `settings` are the service's own, by the names that its `settings.py` gives them.
    """

    def __init__(self, name: str, **settings: object) -> None:
        self.name = name
        my_services.prepare(name)
        port = system.free_port()
        self.url = f"http://127.0.0.1:{port}"
        paths.logs_dir().mkdir(parents=True, exist_ok=True)
        self.log = paths.logs_dir() / f"my_{name}.log"
        output: IO[bytes]
        with open(self.log, "wb") as output:
            self._process = subprocess.Popen(
                my_services.command(name),
                cwd=paths.ROOT,
                env=_environment(name, port, settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.stop = weakref.finalize(self, _end, self._process)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + START_PATIENCE
        reason = "starting"
        while time.monotonic() < end:
            if (code := self._process.poll()) is not None:
                raise self._failed(f"ended with exit code {code}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                    return
            except urllib.error.HTTPError as error:
                reason = error.read().decode("utf-8", "replace")[:200]
            except OSError as error:
                reason = str(error)
            time.sleep(0.05)
        raise self._failed(f"was not ready within {START_PATIENCE:g} s ({reason})")

    def _failed(self, what: str) -> WorkshopError:
        return WorkshopError(f"my_services/{self.name} {what}.", _told(self.log))

    def __enter__(self) -> str:
        return self.url

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if isinstance(error, urllib.error.HTTPError):
            if error.code >= 500:
                raise self._failed(f"answered {error.code}, {error.reason}") from None
        elif isinstance(error, urllib.error.URLError | TimeoutError | ConnectionError):
            raise self._failed(f"did not answer ({error})") from None

    def __str__(self) -> str:
        return self.url


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to one that does not end; nothing is left behind."""
    process.terminate()
    try:
        process.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _told(log: Path, since: int = 0) -> str:
    """What a log says from byte `since` on: its last exception, else its last lines."""
    lines = log.read_bytes()[since:].decode("utf-8", "replace").strip().splitlines()
    for line in reversed(lines):
        if trace := _exception(line):
            places = re.findall(r'(my_services/\w+/\w+\.py)", line (\d+)', trace)
            where = " ({}, line {})".format(*places[-1]) if places else ""
            return f"Its log says: {trace.splitlines()[-1][:300]}{where}"
    said = "\n".join(f"  {line[:300]}" for line in lines[-_LOG_LINES:])
    return f"The last lines of its log:\n{said}" if said else "It wrote no log."


def _exception(line: str) -> str:
    """The traceback in a service's log line; "" if it holds none."""
    try:
        return str(json.loads(line).get("exception", "")).strip()
    except (ValueError, AttributeError):
        return ""


def _environment(name: str, port: int, settings: Mapping[str, object]) -> dict[str, str]:
    """What the reference has in the running system, but for its port, its data and `settings`."""
    here = system.require_running()
    if "project" in here.state:
        raise WorkshopError(
            f"my_services/{name} is served beside processes, and containers run.",
            f'`workshop.swap("{name}")` puts it into a container.',
        )
    plan = json.loads((paths.run_dir() / "plan.json").read_text())
    specs = [catalogue.ProcessSpec.from_json(item) for item in plan["processes"]]
    spec = next(spec for spec in specs if spec.name == name)
    prefix = catalogue.entry_of(name).prefix
    own = {
        f"{prefix}PORT": str(port),
        f"{prefix}DATA_DIR": str(paths.home() / "my_data"),
        # Beside the system it would take part of the messages that the reference waits for.
        f"{prefix}CONSUME": "false",
    }
    given = {f"{prefix}{key}".upper(): _text(value) for key, value in settings.items()}
    return {**spec.full_environment(), **own, **given, **my_services.environment()}


def _text(value: object) -> str:
    """A setting as its environment variable: lists and dictionaries as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def swap(name: str) -> None:
    """Run `my_services/NAME` in the running system, in the reference's place and at its address.

    It must be ready within `START_PATIENCE` seconds and pass the contract at that address. If it
    does not, the reference comes back, and the `WorkshopError` says what to look at.
    """
    here = system.require_running()
    my_services.prepare(name)
    since = here.log_end(name)
    here.replace(name, command=my_services.command(name), env=my_services.environment())
    try:
        here.wait(name, START_PATIENCE)
        results = exercises.run_contract(name, here.url(name), first_red=True)
        red = next((result for result in results if not result.green), None)
        if red:
            raise WorkshopError(f"its contract is red. {red.title}: {red.message}")
    except BaseException as error:
        said = _told(here.log(name), since)
        _restore(here, name)
        if not isinstance(error, WorkshopError):
            raise
        raise WorkshopError(
            f"my_services/{name} was taken out again: {error.what} The reference is back.",
            said,
        ) from None


def restore(name: str) -> None:
    """Bring the reference back, whatever stood in its place; returns when it is ready."""
    _restore(system.require_running(), name)


def _restore(here: system.System, name: str) -> None:
    here.restore(name)
    here.wait(name, RESTORE_PATIENCE)
