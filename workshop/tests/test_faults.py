"""Faults on purpose, on a system of tiny programs."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

import workshop
from workshop import catalogue, system
from workshop.errors import WorkshopError

Start = Callable[..., system.System]


def get(url: str, timeout: float = 5.0) -> str:
    with urllib.request.urlopen(url, timeout=timeout) as response:
        return response.read().decode()


@pytest.fixture
def here(tiny: Start) -> system.System:
    here = tiny("web", "web")
    assert all(status.ok for status in system.wait_ready(here, timeout=10.0))
    return here


def test_a_killed_one_refuses_and_is_back_after_the_block(here: system.System) -> None:
    with workshop.kill("web0"):
        time.sleep(0.7)  # the supervisor would have brought a crashed one back by now
        with pytest.raises(urllib.error.URLError, match="refused"):
            get(here.url("web0"))
        assert get(here.url("web1")) == "hello 1"
    assert get(here.url("web0")) == "hello 0"


def test_a_paused_one_is_silent_and_goes_on_as_the_same_process(here: system.System) -> None:
    pid = here.refresh().pids["web0"]
    with workshop.pause("web0"), pytest.raises(TimeoutError):
        get(here.url("web0"), timeout=0.3)
    assert get(here.url("web0")) == "hello 0"
    assert here.refresh().pids["web0"] == pid


def test_what_was_down_before_is_left_down(here: system.System) -> None:
    here.stop("web1")
    with workshop.kill("web0"):
        pass
    assert here.refresh().processes["web1"]["state"] != "running"


@pytest.fixture
def routed(here: system.System, monkeypatch: pytest.MonkeyPatch) -> system.System:
    """web1 is told web0's address in GREETING, and shows it."""
    monkeypatch.setattr(catalogue, "routes", lambda name, url: {"web1": {"GREETING": url}})
    return here


def test_a_slow_one_answers_late_to_its_callers_alone(routed: system.System) -> None:
    with workshop.slow("web0", seconds=0.4):
        way = get(routed.url("web1"))
        assert way != routed.url("web0")
        started = time.monotonic()
        assert get(way) == "hello 0"
        assert time.monotonic() - started >= 0.4
        started = time.monotonic()
        assert get(routed.url("web0")) == "hello 0"
        assert time.monotonic() - started < 0.4
    assert get(routed.url("web1")) == "hello 1"


def test_a_disconnected_one_lives_and_cannot_be_reached(routed: system.System) -> None:
    with workshop.disconnect("web0"):
        way = get(routed.url("web1"))
        with pytest.raises(TimeoutError):
            get(way, timeout=0.3)
        assert get(routed.url("web0")) == "hello 0"
    assert get(routed.url("web1")) == "hello 1"


def test_everything_is_mended_after_an_error_in_the_block(routed: system.System) -> None:
    for broken in (workshop.kill("web0"), workshop.disconnect("web0")):
        with pytest.raises(ZeroDivisionError), broken:
            raise ZeroDivisionError
        assert get(routed.url("web0")) == "hello 0"
        assert get(routed.url("web1")) == "hello 1"


def test_a_proxy_counts_calls(here: system.System) -> None:
    with workshop.proxied("web0") as proxy:
        assert [get(proxy.url) for _ in range(3)] == ["hello 0"] * 3
        assert proxy.requests == 3


def test_a_name_that_is_not_there_is_said_before_anything_breaks(here: system.System) -> None:
    for fault in (workshop.kill, workshop.pause, workshop.disconnect):
        with pytest.raises(WorkshopError, match="no service named reranker"), fault("reranker"):
            pass


def test_every_caller_of_a_service_is_rerouted_and_nobody_else() -> None:
    found = catalogue.routes("reranking", "http://there")
    assert set(found) == {"ingestion", "ingestion_worker", "orchestrator", "gateway"}
    assert found["orchestrator"] == {"ORCHESTRATOR_RERANKING_URL": "http://there"}
    llm = catalogue.routes("llm_server", "http://there")
    assert llm["generation"] == {"GENERATION_LLM_URL": "http://there/v1"}
    assert catalogue.routes("gateway", "http://there") == {}


def test_a_setting_of_the_start_comes_back_when_it_is_taken_back() -> None:
    start = catalogue.ProcessSpec("x", 0, overrides={"A": "1"})
    now = start.configured({"A": "2", "B": "3"}, start)
    assert now.overrides == {"A": "2", "B": "3"}
    assert now.configured({"A": None, "B": None, "C": None}, start) == start
