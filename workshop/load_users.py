"""What Locust runs for `workshop.load`: users that ask one service, and a row for each call.

`WORKSHOP_LOAD` names the plan: `path`, `bodies`, `users`, `seconds`, `every` and the file for the
`rows`. Beside that file, `started` appears with the first call.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, events, task
from locust.env import Environment

PLAN: dict[str, Any] = json.loads(Path(os.environ["WORKSHOP_LOAD"]).read_text())
_bodies = itertools.cycle(PLAN["bodies"])
_numbers = itertools.count()
_rows: list[tuple[float, float, float, bool]] = []
_PARENT = os.getppid()


class Asker(FastHttpUser):
    """One call at a time, on a schedule that does not move when an answer is late."""

    def on_start(self) -> None:
        Path(PLAN["rows"]).with_name("started").touch()
        self.due = time.time() + next(_numbers) * PLAN["every"] / PLAN["users"]

    def wait_time(self) -> float:
        """Seconds until the next call is due; 0 when it is overdue."""
        self.due = self.due + PLAN["every"] if PLAN["every"] else time.time()
        return max(0.0, self.due - time.time())

    @task
    def ask(self) -> None:
        self.client.post(PLAN["path"], json=next(_bodies), context={"due": self.due})


@events.init.add_listener
def on_init(environment: Environment, **_: Any) -> None:
    gevent.spawn(_end, environment)


def _end(environment: Environment) -> None:
    """Stop the users in time. Locust's own `--run-time` counts from before its slow start."""
    end = float("inf")
    while time.time() < end:
        if os.getppid() != _PARENT:
            os._exit(1)  # nobody waits for the rows any more
        if _rows and end == float("inf"):
            end = _rows[0][1] + PLAN["seconds"]
        gevent.sleep(0.02)
    if environment.runner is not None:
        environment.runner.quit()


@events.request.add_listener
def on_request(
    *, start_time: float, response_time: float, exception: Any, context: Any, **_: Any
) -> None:
    done = start_time + response_time / 1000
    _rows.append((min(context["due"], start_time), start_time, done, exception is None))


@events.quitting.add_listener
def on_quitting(**_: Any) -> None:
    Path(PLAN["rows"]).write_text(json.dumps(_rows))
