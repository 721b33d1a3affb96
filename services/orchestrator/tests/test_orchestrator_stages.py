import asyncio

import pytest

from services.chassis import CallFailed
from services.orchestrator.settings import Settings
from services.orchestrator.stages import Stage, run_stage

RERANKING = Stage("reranking", cap=0.4, share=0.1)
LATER = (Stage("context_aggregation", 0.5, 0.1), Stage("generation", 2.0, 0.8))


async def seconds_given(left, later=LATER):
    """(what the stage was given, what was noted); None: it was not begun."""
    lost = {}

    async def work(seconds):
        return seconds

    return await run_stage(work, RERANKING, later, left, lost), lost


@pytest.mark.parametrize(
    ("left", "given"), [(3.0, 0.4), (1.2, 0.3), (0.96, 0.06), (0.9, None), (0.0, None)]
)
async def test_a_stage_gets_its_cap_or_what_the_later_ones_leave(left, given):
    found, lost = await seconds_given(left)
    assert found == (given and pytest.approx(given))
    assert list(lost) == ([] if given else ["reranking"])


async def test_the_last_stage_keeps_nothing():
    assert (await seconds_given(0.2, later=()))[0] == pytest.approx(0.2)


async def test_a_failed_call_is_noted_with_its_reason():
    async def work(seconds):
        raise CallFailed("reranking", "gone")

    lost = {}
    assert await run_stage(work, RERANKING, (), 1.0, lost) is None
    assert lost == {"reranking": "gone"}


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyError])
async def test_cancellation_and_bugs_pass(error):
    async def work(seconds):
        raise error

    lost = {}
    with pytest.raises(error):
        await run_stage(work, RERANKING, (), 1.0, lost)
    assert lost == {}


def test_the_plan_is_in_the_order_of_the_pipeline_and_fits_into_half_a_second():
    settings = Settings()
    assert [stage.name for stage in settings.plan][:2] == ["query_preprocessing", "hybrid_search"]
    assert all(0 < stage.least < stage.share < stage.cap for stage in settings.plan)
    assert sum(stage.share for stage in settings.plan) + settings.answer_reserve <= 0.5
