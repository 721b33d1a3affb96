import asyncio

import pytest

from services.hybrid_search.domain import Place, ask_together, reciprocal_rank_fusion


def test_a_passage_in_both_lists_beats_one_that_leads_a_single_list():
    fused = reciprocal_rank_fusion(
        {"dense": [("a", 0.9), ("b", 0.8)], "sparse": [("c", 7.0), ("b", 6.0)]}
    )
    assert [item.id for item in fused] == ["b", "a", "c"]


def test_scores_follow_the_formula_with_rank_from_one():
    fused = reciprocal_rank_fusion({"dense": [("a", 0.9)], "sparse": [("x", 3.0), ("a", 2.0)]})
    assert fused[0].score == pytest.approx(1 / 61 + 1 / 62)
    assert fused[0].provenance == {"dense": Place(1, 0.9), "sparse": Place(2, 2.0)}


def test_a_weight_scales_its_list_and_zero_leaves_it_out():
    lists = {"dense": [("a", 1.0)], "sparse": [("b", 1.0)]}
    assert reciprocal_rank_fusion(lists, weights={"dense": 1, "sparse": 2})[0].id == "b"
    only = reciprocal_rank_fusion(lists, weights={"dense": 1, "sparse": 0})
    assert [item.id for item in only] == ["a"]


def test_ties_are_ordered_by_id_whatever_the_order_of_the_lists():
    one = reciprocal_rank_fusion({"dense": [("b", 1.0)], "sparse": [("a", 1.0)]})
    two = reciprocal_rank_fusion({"sparse": [("a", 1.0)], "dense": [("b", 1.0)]})
    assert [item.id for item in one] == [item.id for item in two] == ["a", "b"]


async def test_all_are_asked_before_the_first_answers():
    begun, all_begun = [], asyncio.Event()

    async def ask(name):
        begun.append(name)
        if len(begun) == 3:
            all_begun.set()
        await asyncio.wait_for(all_begun.wait(), 2)
        return name.upper()

    assert await ask_together(ask, ["a", "b", "c"]) == {"a": "A", "b": "B", "c": "C"}


async def test_one_that_fails_leaves_its_exception_in_its_place():
    gone = ConnectionError("gone")

    async def ask(name):
        if name == "b":
            raise gone
        return name

    assert await ask_together(ask, ["a", "b"]) == {"a": "a", "b": gone}
