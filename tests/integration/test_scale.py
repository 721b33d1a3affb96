"""Copies of a service in the running system: they answer, one may die, and they go away again."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from workshop import client, course, replicas, sync, system
from workshop.errors import WorkshopError
from workshop.load_run import load

NAME = "hybrid_search"
pytestmark = [
    pytest.mark.system,
    pytest.mark.processes("of containers Docker Compose makes the copies, see tests/containers"),
]


@pytest.fixture
def here(indexed, system_environment, monkeypatch):
    for name, value in system_environment.items():
        monkeypatch.setenv(name, value)
    yield indexed
    replicas.scale(NAME, 1)


def found(here: system.System) -> list[str]:
    answer = sync.wait(client.search(here.url("gateway"), "What is a saga?", top_k=5, rerank=False))
    return [hit["id"] for hit in answer["hits"]]


def up(here: system.System) -> list[int]:
    return [row["pid"] for row in replicas.replicas_of(here.url(NAME)) if row["up"]]


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


@pytest.mark.slow
def test_two_copies_answer_one_dies_comes_back_and_both_go_away(here) -> None:
    before = found(here)
    replicas.scale(NAME, 2)
    pids = up(here)
    assert len(pids) == 2
    assert found(here) == before
    calls = load(NAME, users=4, seconds=2)
    assert all(call.ok for call in calls)
    assert all(call.due <= call.sent < call.done for call in calls)
    assert all(row["calls"] > 0 for row in replicas.replicas_of(here.url(NAME)))
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: up(here) == [pids[1]])
    assert found(here) == before
    until(lambda: len(up(here)) == 2)
    last = up(here)
    replicas.scale(NAME, 1)
    assert found(here) == before
    assert not any(psutil.pid_exists(pid) for pid in last)
    assert not here.refresh().processes[NAME]["replaced"]


def test_calls_that_are_due_while_a_service_stands_still_are_late(here) -> None:
    pid = here.refresh().pids[NAME]

    def stand_still() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.0)
        os.kill(pid, signal.SIGCONT)

    calls = load(NAME, users=2, seconds=3, every=0.1, during=stand_still)
    waited = [call for call in calls if call.done - call.due > 0.3]
    assert len(waited) >= 8, "about 14 were due in the first 0.7 s of that second"
    assert sum(call.done - call.sent > 0.3 for call in calls) < len(waited)


@pytest.mark.parametrize(
    ("name", "count", "says"),
    [
        ("dense_retrieval", 2, "keeps data"),
        ("llm_server", 2, "none of the services"),
        (NAME, 0, "0 copies cannot be run"),
        (NAME, 9, "Choose 1 to 8"),
        ("nobody", 2, "no service named nobody"),
    ],
)
def test_what_cannot_be_copied_is_refused(here, name: str, count: int, says: str) -> None:
    with pytest.raises(WorkshopError) as error:
        replicas.scale(name, count)
    assert says in str(error.value)


def test_copies_that_do_not_start_leave_the_service_as_it_was(here) -> None:
    with pytest.raises(WorkshopError, match="did not get ready"):
        replicas.scale(NAME, 2, max_concurrency=0)
    assert found(here)
    assert not here.refresh().processes[NAME]["replaced"]


def test_every_service_that_may_be_copied_has_a_probe() -> None:
    assert all(course.probe_of(name).path for name in replicas.STATELESS)
