"""How the tests share two workers: `pytest -n 2`, by pytest-xdist's hook for a scheduler.

To start the system and to index the handbook takes a minute, so what needs them goes to one worker,
and what needs containers to another. Test files with needs of their own go to whoever is free. At
the end, one worker after the other, come tests that want the processors for themselves.
"""

from __future__ import annotations

import fcntl
import os
import re
from typing import IO

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from workshop import paths

SYSTEM, CONTAINERS, BROKEN = "the system", "containers", "the system, changed"
ALONE, CONTAINERS_ALONE = "the system, alone", "containers, alone"

ORDER = (SYSTEM, CONTAINERS, BROKEN, "", ALONE, CONTAINERS_ALONE)
"""Each kind of work comes after those before it; "" is any other file of tests."""

HOME = {ALONE: SYSTEM, CONTAINERS_ALONE: CONTAINERS}
"""Work that goes to the worker which has done that other work, and has what it needs."""

_FILES = {
    "tests/containers/": CONTAINERS,
    "tests/contract/": SYSTEM,
    "tests/integration/test_equivalence.py": SYSTEM,
    "tests/integration/test_openai_clients": SYSTEM,
    "tests/integration/": BROKEN,
    "tests/notebooks/test_own_service.py": BROKEN,
    "tests/notebooks/test_exercises.py": "",
    "tests/notebooks/test_build.py": "",
    "tests/notebooks/": SYSTEM,
    "tests/slides/test_demos.py": BROKEN,
    "tests/test_running_system.py": BROKEN,
}

_FAULTS = {
    **dict.fromkeys(("04", "07", "08", "09"), SYSTEM),
    **dict.fromkeys(("01", "02", "03", "05", "06", "10"), ALONE),
}
"""Rows of the faults table, by number: those that hold times to a limit want the processors."""


def work_of(nodeid: str) -> str:
    """The kind of work that a test is."""
    if nodeid.endswith("alone]"):
        return ALONE
    if row := re.match(r"tests/faults/test_(\d\d)_", nodeid):
        kind = _FAULTS[row[1]]
        in_containers = {SYSTEM: CONTAINERS, ALONE: CONTAINERS_ALONE}
        return in_containers[kind] if nodeid.endswith("[containers]") else kind
    return next((kind for begin, kind in _FILES.items() if nodeid.startswith(begin)), "")


class OneSystemAWorker(LoadScopeScheduling):
    """Hands out kinds of work, and single files of the rest."""

    def _split_scope(self, nodeid: str) -> str:
        return work_of(nodeid) or str(super()._split_scope(nodeid))

    def schedule(self) -> None:
        self.config.option.loadscopereorder = False  # the order is that of the collected tests
        super().schedule()

    def _assign_work_unit(self, node: WorkerController) -> None:
        for scope in self.workqueue:
            if self._may_have(node, scope):
                self.workqueue.move_to_end(scope, last=False)
                super()._assign_work_unit(node)
                return
        node.shutdown()

    def _may_have(self, node: WorkerController, scope: str) -> bool:
        home = HOME.get(scope)
        taken = [work for work in self.assigned_work.values() if home in work]
        return not taken or home in self.assigned_work[node]


_lock: IO[str] | None = None
_alone = False


def begin_beside_others() -> None:
    """Called once by each worker, before its first test."""
    global _lock
    if "PYTEST_XDIST_WORKER" in os.environ:
        path = paths.ROOT / ".workshop" / "tests.lock"
        path.parent.mkdir(exist_ok=True)
        _lock = path.open("w")
        fcntl.flock(_lock, fcntl.LOCK_SH)


def wait_until_alone() -> None:
    """Returns when every other worker is at its end, or waits here too. Those that wait are held
    back until this worker is at its end."""
    global _alone
    if _lock is not None and not _alone:
        fcntl.flock(_lock, fcntl.LOCK_UN)
        fcntl.flock(_lock, fcntl.LOCK_EX)
        _alone = True
