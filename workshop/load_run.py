"""Load on a service of the running system, made by Locust (https://locust.io) in a process apart.

Locust replaces Python's sockets and threads with gevent's. That must not happen to a notebook, so
it runs `load_users.py` as a program, and what it saw comes back as rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import course, paths, system
from .errors import WorkshopError

WARM_UP = 0.5
"""Seconds at the start whose calls are not given: connections open, code is run once."""
_PATIENCE = 60.0


class Call(NamedTuple):
    """One call: when it was due, sent and done, in seconds from the start, and how it ended.

    A user that still waits for an answer sends its next call late: `sent` is then after `due`.
    """

    due: float
    sent: float
    done: float
    ok: bool


def load(
    name: str,
    *,
    users: int,
    seconds: int,
    every: float = 0.0,
    during: Callable[[], object] = lambda: None,
) -> list[Call]:
    """What users get who call a service for some seconds, each of them one call at a time.

    With `every` 0 each asks again as soon as it has its answer (a closed loop). Otherwise each has
    a call due every so many seconds, in turn with the others, however long the one before took.
    The request is the service's probe (`course.toml`), with the questions of the handbook.
    `during` is called once, a second after the first call.
    """
    here = system.require_running()
    probe = course.probe_of(name)
    plan: dict[str, Any] = {
        "path": probe.path,
        "bodies": [_filled(probe.body, question) for question in _questions()],
        "users": users,
        "seconds": seconds,
        "every": every,
    }
    with tempfile.TemporaryDirectory(prefix="workshop-load-") as folder:
        rows = Path(folder) / "rows.json"
        (Path(folder) / "plan.json").write_text(json.dumps(plan | {"rows": str(rows)}))
        with _locust(here.url(name), Path(folder) / "plan.json", users) as program:
            try:
                _wait_for(program, Path(folder) / "started", during)
                _end_of(program, seconds)
            finally:
                program.kill()  # nothing, unless this was interrupted
        calls = sorted(Call(*row) for row in json.loads(rows.read_text()))
    if not calls:
        raise WorkshopError(f"No call to {name} ended.", f"See `workshop logs {name}`.")
    start = calls[0].due + WARM_UP
    return [
        Call(c.due - start, c.sent - start, c.done - start, c.ok) for c in calls if c.due > start
    ]


def _questions() -> list[str]:
    with (paths.ROOT / "handbook" / "questions.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["question"] for line in file]


def _filled(body: dict[str, Any], question: str) -> dict[str, Any]:
    return {key: question if value == "{question}" else value for key, value in body.items()}


def _locust(url: str, plan: Path, users: int) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("load_users.py"))]
    program += ["--headless", "--host", url, "--stop-timeout", "10"]
    program += ["--users", str(users), "--spawn-rate", str(users), "--exit-code-on-error", "0"]
    return subprocess.Popen(
        [*program, "--only-summary", "--loglevel", "WARNING"],
        cwd=paths.ROOT,
        env={**os.environ, "WORKSHOP_LOAD": str(plan)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for(program: subprocess.Popen[str], started: Path, during: Callable[[], object]) -> None:
    end = time.monotonic() + _PATIENCE
    while not started.exists() and program.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    if program.poll() is None:
        time.sleep(1.0)
        during()


def _end_of(program: subprocess.Popen[str], seconds: int) -> None:
    try:
        said, _ = program.communicate(timeout=_PATIENCE + seconds)
    except subprocess.TimeoutExpired as error:
        raise WorkshopError("The load did not end.", "See `workshop status`.") from error
    if program.returncode:
        raise WorkshopError(
            f"Locust ended with exit code {program.returncode}: {said.strip()[-300:]}"
        )
