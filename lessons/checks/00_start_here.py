"""The checks of lesson 00."""

from __future__ import annotations

import math

from workshop.exercises import check

TIMINGS = [
    {"stage": "query_preprocessing", "start_ms": 0.0, "ms": 4.0, "status": "ok"},
    {"stage": "hybrid_search", "start_ms": 4.0, "ms": 26.0, "status": "ok"},
    {"stage": "generation", "start_ms": 30.0, "ms": 150.0, "status": "ok"},
    {"stage": "post_processing", "start_ms": 180.0, "ms": 20.0, "status": "ok"},
]
CALLS = {
    "gateway": ["orchestrator", "feedback"],
    "orchestrator": ["search", "generation"],
    "search": ["dense", "sparse"],
    "dense": ["embedding"],
    "feedback": [],
}


@check("00.1", "start_here", "trace.py")
def the_longest_stage(trace):
    """The slowest stage of four is generation, with 75 % of the time."""
    found = trace.slowest(TIMINGS)
    assert found is not None, "the function returns nothing: is there a return?"
    assert len(found) == 2, "return two things: the stage's name, and its share"
    name, share = found
    assert name == "generation", f"got {name}: the longest is the one with the largest `ms`"
    assert math.isclose(share, 0.75), f"got {share}: 150 of 200 ms is 0.75"


@check("00.1", "start_here", "trace.py")
def the_order_does_not_matter(trace):
    """The slowest stage is found wherever it stands."""
    for turned in (TIMINGS[2:] + TIMINGS[:2], TIMINGS[::-1]):
        assert trace.slowest(turned)[0] == "generation", "do not rely on the place in the list"


@check("00.1", "start_here", "trace.py")
def parallel_stages_count_once(trace):
    """Two stages at the same time: the whole lasts until the last one ends."""
    timings = [
        {"stage": "dense", "start_ms": 0.0, "ms": 30.0, "status": "ok"},
        {"stage": "sparse", "start_ms": 0.0, "ms": 10.0, "status": "ok"},
        {"stage": "generation", "start_ms": 30.0, "ms": 70.0, "status": "ok"},
    ]
    name, share = trace.slowest(timings)
    assert name == "generation", f"got {name}: generation lasts 70 ms, longer than the others"
    assert math.isclose(share, 0.7), (
        f"got {share}: the whole ends at 30 + 70 = 100 ms. The sum of all `ms` counts time twice "
        "where stages overlap"
    )


@check("00.2", "start_here", "impact.py")
def direct_callers(impact):
    """When generation is gone, orchestrator and gateway notice."""
    found = impact.affected(CALLS, "generation")
    assert found is not None, "the function returns nothing: is there a return?"
    assert set(found) == {"orchestrator", "gateway"}, (
        f"got {sorted(found)}: the orchestrator calls generation, the gateway the orchestrator"
    )


@check("00.2", "start_here", "impact.py")
def callers_of_callers(impact):
    """When embedding is gone, everything up to the gateway notices, and nothing else."""
    found = set(impact.affected(CALLS, "embedding"))
    assert "dense" in found, "dense calls embedding itself"
    assert "gateway" in found, "gateway calls orchestrator, which calls search, which calls dense"
    assert "embedding" not in found, "the service that is gone is not one of those that notice"
    assert found == {"dense", "search", "orchestrator", "gateway"}, (
        f"got {sorted(found)}: go on from each caller to its own callers"
    )


@check("00.2", "start_here", "impact.py")
def nobody_calls_the_gateway(impact):
    """When the gateway is gone, no service notices."""
    found = set(impact.affected(CALLS, "gateway"))
    assert found == set(), f"got {sorted(found)}: follow the callers, not those that are called"


@check("00.2", "start_here", "impact.py")
def a_circle_ends(impact):
    """Two services that call each other do not make it run for ever."""
    found = set(impact.affected({"a": ["b"], "b": ["a", "c"]}, "c"))
    assert found == {"a", "b"}, f"got {sorted(found)}: b calls c, and a calls b"
