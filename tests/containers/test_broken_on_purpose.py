"""The faults of `workshop.faults`, between containers."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest

from workshop import faults, system

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def degraded(lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What a search through the gateway says that it missed."""
    monkeypatch.setattr(system, "running", lambda: lab)

    def search() -> list[str]:
        body = {"query": "circuit breaker", "rerank": True}
        found = httpx.post(f"{lab.url('gateway')}/v1/search", json=body, timeout=30)
        assert found.status_code == 200, found.text
        return found.json()["degraded"]

    assert search() == []
    return search


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (faults.kill, "sparse_retrieval"),
        (faults.pause, "dense_retrieval"),
        (faults.disconnect, "sparse_retrieval"),
    ],
)
def test_a_search_says_who_is_gone_and_is_whole_again_afterwards(degraded, fault, name):
    with fault(name):
        assert degraded() == [name]
    _until(lambda: degraded() == [], seconds=10)


def test_a_slow_service_is_late_to_its_callers_and_leaves_no_proxy(lab, degraded):
    containers = set(lab.processes)

    def seconds() -> float:
        vote = {"request_id": "r-1", "kind": "answer_copied"}
        started = time.monotonic()
        found = httpx.post(f"{lab.url('gateway')}/v1/feedback", json=vote, timeout=30)
        assert found.status_code < 300, found.text
        return time.monotonic() - started

    assert min(seconds() for _ in range(3)) < 0.6
    with faults.slow("feedback", seconds=0.6):
        assert seconds() >= 0.6
    assert min(seconds() for _ in range(3)) < 0.6
    assert set(lab.processes) == containers
    names = [c.name for c in lab.known("feedback")["container"].client.containers.list(all=True)]
    assert not any(name.endswith("-late") for name in names)


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.2)
