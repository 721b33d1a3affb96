"""The course in containers: one compose project that walks from step to step, with its volumes.

At each step the system is healthy, its front answers the README's question with the passages of the
step before, and what the step took out of the script keeps its contract.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from workshop import client, containers, exercises, fixed, sync

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


@pytest.fixture(scope="module")
def here(
    at_step: Callable[[str | None], containers.Containers], step: str
) -> containers.Containers:
    return at_step(step)


@pytest.fixture(scope="module")
def ranking() -> dict[str, list[fixed.FixedAnswer]]:
    """What the first step of this run found."""
    return {}


def test_every_container_of_the_step_is_healthy(here: containers.Containers, step: str) -> None:
    statuses = here.statuses()
    assert set(TAKEN_OUT[step]) | {here.front} <= {s.name for s in statuses}
    assert [f"{s.name}: {s.reason}" for s in statuses if not s.ok] == []


def test_its_front_answers_the_question_of_the_readme(here: containers.Containers) -> None:
    answer = sync.wait(client.answer(here.url(here.front), QUESTION))
    assert answer["degraded"] == []
    assert answer["kind"] == "generated"
    assert PAGE in {citation["document"] for citation in answer["citations"]}


def test_the_split_changes_no_ranking(
    here: containers.Containers, ranking: dict[str, list[fixed.FixedAnswer]]
) -> None:
    """The fixed questions find the same passages in the same order as at the step before."""
    found = [answer.passages for answer in fixed.ask(here.url(here.front), 1, 2)]
    assert all(found)
    assert found == ranking.setdefault("first", found)


def test_what_the_step_took_out_keeps_its_contract(here: containers.Containers, step: str) -> None:
    for name in TAKEN_OUT[step]:
        results = exercises.run_contract(name, here.url(name))
        assert results
        assert [str(result) for result in results if not result.green] == []
