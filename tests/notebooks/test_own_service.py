"""A learner's service beside the system, in it, and out of it again when it is no good."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from workshop import course, exercises, lessons, swapping, system
from workshop.errors import WorkshopError

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

NAME = "hybrid_search"
RRF = "def reciprocal_rank_fusion(lists, *, weights=None, k=60.0):\n"
WORST_FIRST = """\
    from services.hybrid_search import domain
    return domain.reciprocal_rank_fusion(lists, weights=weights, k=k)[::-1]
"""
QUERY = {"query": "What is backpressure?", "language": "en", "top_k": 10}


@pytest.fixture
def mine(
    indexed: system.System,
    system_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """`my_services/hybrid_search` with the solution in it; the reference is back afterwards."""
    for name, value in system_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORKSHOP_MY_SERVICES", str(tmp_path / "my_services"))
    folder = tmp_path / "my_services" / NAME
    folder.mkdir(parents=True)
    for (_, file), text in lessons.saved_files(
        lessons.solution_notebook(course.find("05"))
    ).items():
        (folder / file).write_text(text)
    yield folder
    if status(indexed).replaced:
        swapping.restore(NAME)


def status(here: system.System) -> system.Status:
    return next(s for s in system.statuses(here) if s.name == NAME)


def ids(url: str) -> list[str]:
    request = urllib.request.Request(f"{url}/v1/search", json.dumps(QUERY).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as response:
        return [hit["id"] for hit in json.load(response)["hits"]]


def assert_usable(here: system.System) -> None:
    """The reference is in its place, and searches are answered."""
    assert status(here).ok
    assert not status(here).replaced
    assert len(ids(here.url(NAME))) == 10


def test_the_solution_is_served_alone_and_stopped(mine: Path, indexed: system.System) -> None:
    served = swapping.Served(NAME)
    pid = served._process.pid
    with served as url:
        assert url != indexed.url(NAME)
        assert ids(url) == ids(indexed.url(NAME))
    assert not psutil.pid_exists(pid)


def test_one_that_nobody_holds_any_more_is_stopped(mine: Path, indexed: system.System) -> None:
    served = swapping.Served(NAME)
    pid = served._process.pid
    assert psutil.pid_exists(pid)
    del served
    assert not psutil.pid_exists(pid)


def test_it_is_served_with_other_settings(mine: Path, indexed: system.System) -> None:
    with swapping.Served(NAME, weights={"en": {"sparse": 1.0}, "pt": {"sparse": 1.0}}) as url:
        request = urllib.request.Request(f"{url}/v1/search", json.dumps(QUERY).encode())
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as response:
            hits = json.load(response)["hits"]
    assert hits
    assert {name for hit in hits for name in hit["provenance"]} == {"sparse"}


def test_the_solution_passes_the_contract_in_its_place_and_goes_again(
    mine: Path, indexed: system.System
) -> None:
    before = ids(indexed.url(NAME))
    swapping.swap(NAME)
    assert status(indexed).replaced
    command = psutil.Process(status(indexed).pid).cmdline()
    assert f"my_services.{NAME}" in command
    assert ids(indexed.url(NAME)) == before
    swapping.restore(NAME)
    assert_usable(indexed)


def test_one_that_does_not_start_shows_the_end_of_its_log(mine: Path) -> None:
    (mine / "core.py").write_text("import no_such_module\n")
    with pytest.raises(WorkshopError) as error:
        swapping.Served(NAME)
    assert "ended with exit code 1" in error.value.what
    assert "No module named 'no_such_module'" in error.value.way_out


def test_one_that_fails_a_request_shows_its_error_and_the_learner_s_line(mine: Path) -> None:
    (mine / "core.py").write_text(RRF + "    raise ValueError('oh')\n")
    with pytest.raises(WorkshopError) as error, swapping.Served(NAME) as url:
        ids(url)
    assert error.value.what == f"my_services/{NAME} answered 500, Internal Server Error."
    assert error.value.way_out == (
        f"Its log says: ValueError: oh (my_services/{NAME}/core.py, line 2)"
    )


@pytest.mark.parametrize(
    ("core", "says"),
    [
        ("import no_such_module\n", "no_such_module"),
        ("import time\n\ntime.sleep(600)\n", "does not get ready"),
        (RRF + "    while True:\n        pass\n", "its contract is red"),
        (RRF + "    return []\n", "its contract is red"),
        (RRF + "    raise ValueError('oh')\n", "its contract is red"),
        (RRF + WORST_FIRST, "its contract is red. hits are ranked"),
    ],
    ids=["crashes", "never starts", "hangs", "finds nothing", "raises", "worst first"],
)
def test_one_that_is_no_good_is_taken_out_and_the_system_stays_usable(
    mine: Path, indexed: system.System, monkeypatch: pytest.MonkeyPatch, core: str, says: str
) -> None:
    monkeypatch.setattr(swapping, "START_PATIENCE", 8.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook's kernel sets it
    (mine / "core.py").write_text(core)
    with pytest.raises(WorkshopError) as error:
        swapping.swap(NAME)
    assert says in str(error.value)
    assert "The reference is back." in error.value.what
    assert "Traceback" not in str(error.value)
    assert "x1b" not in repr(str(error.value)).lower()
    assert_usable(indexed)


def test_the_contract_is_what_the_reference_passes(indexed: system.System) -> None:
    found = exercises.run_contract(NAME, indexed.url(NAME))
    assert len(found) >= 10
    assert [str(r) for r in found if not r.green] == []
