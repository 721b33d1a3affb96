"""The course in containers: one compose project that walks from step to step, with its volumes.

The script reads some pages of the handbook, not all: their vectors would take it two minutes.

At each step the system is healthy, its front answers the README's question from the same passages
as at the step before, and what the step took out of the script keeps its contract.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pages import some_pages
from workshop import client, containers, exercises, paths, sync
from workshop.errors import WorkshopError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
QUESTION = "When does a circuit breaker open?"
PAGE = "en/retries-and-circuit-breakers"
TAKEN_OUT = {
    "02": ["embedding"],
    "03": ["dense_retrieval"],
    "04": ["sparse_retrieval"],
    "05": ["hybrid_search"],
    "06": ["query_preprocessing"],
    "07": ["reranking"],
    "08": ["context_aggregation"],
    "09": ["generation"],
    "10": ["post_processing"],
    "11": ["orchestrator"],
    "12": ["gateway", "feedback", "ingestion"],  # the gateway's contract has their paths in it
}


@pytest.fixture(scope="module", params=TAKEN_OUT)
def step(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def fewer_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Puts a smaller handbook in the place of the image's."""
    folder = tmp_path_factory.mktemp("pages") / "handbook"
    for page in some_pages():
        copy = folder / page.path.relative_to(paths.ROOT / "handbook")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page.path, copy)
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o755)  # the containers run as another user
    file = folder.parent / "compose.yaml"
    mount = f"{folder}:/app/handbook:ro"
    file.write_text(json.dumps({"services": {"monolith": {"volumes": [mount]}}}))
    return file


@pytest.fixture(scope="module")
def here(
    at_step: Callable[..., containers.Containers], step: str, fewer_pages: Path
) -> containers.Containers:
    return at_step(step, *([fewer_pages] if step < "12" else []))


@pytest.fixture(scope="module")
def answer(here: containers.Containers) -> dict[str, Any]:
    """Asked up to three times: what has just started may miss a stage's deadline."""
    for _ in range(2):
        with contextlib.suppress(WorkshopError):
            if not (found := ask(here))["degraded"]:
                return found
        time.sleep(2)
    return ask(here)


def ask(here: containers.Containers) -> dict[str, Any]:
    return sync.wait(client.answer(here.url(here.front), QUESTION, timeout=240))


@pytest.fixture(scope="session")
def first() -> dict[str, Any]:
    """The answer of the first step of this run."""
    return {}


def test_every_container_of_the_step_is_healthy(here: containers.Containers, step: str) -> None:
    statuses = here.statuses()
    names = {s.name for s in statuses}
    assert set(TAKEN_OUT[step]) | {here.front} <= names
    assert ("monolith" in names) == (step != "12")
    assert [f"{s.name}: {s.reason}" for s in statuses if not s.ok] == []


def test_its_front_answers_the_question_of_the_readme(answer: dict[str, Any]) -> None:
    assert answer["degraded"] == []
    assert answer["kind"] == "generated"
    assert PAGE in {citation["document"] for citation in answer["citations"]}


def test_the_split_changes_no_ranking(answer: dict[str, Any], first: dict[str, Any]) -> None:
    """The same passages in the same order, with the same text, as at the first step."""
    before = first.setdefault("answer", answer)
    for key in ("passages", "text"):
        found = [source[key] for source in answer["sources"]]
        assert found
        assert found == [source[key] for source in before["sources"]]


def test_what_the_step_took_out_keeps_its_contract(here: containers.Containers, step: str) -> None:
    for name in TAKEN_OUT[step]:
        results = exercises.run_contract(name, here.url(name), patience=60)
        assert results
        assert [str(result) for result in results if not result.green] == []
