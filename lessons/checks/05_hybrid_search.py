"""The checks of lesson 05."""

from __future__ import annotations

import asyncio
import math
import time

from services.hybrid_search import domain
from workshop.exercises import check

HAND = {
    "dense": [("A", 0.83), ("B", 0.82), ("C", 0.80), ("D", 0.79)],
    "sparse": [("C", 14.2), ("A", 9.1), ("E", 6.0), ("B", 5.0)],
}


def fuse(core, lists, **options):
    fused = core.reciprocal_rank_fusion(lists, **options)
    assert fused is not None, "the function returns nothing: is there a return?"
    assert isinstance(fused, list), f"return a list of Fused, not {type(fused).__name__}"
    for item in fused:
        assert isinstance(item, domain.Fused), f"each item is a Fused, not {item!r}"
    return fused


def near(found, expected, hint):
    assert math.isclose(found, expected, rel_tol=1e-9), (
        f"got {found:.6f}, not {expected:.6f}: {hint}"
    )


@check("05.1", "hybrid_search", "core.py")
def first_place_is_rank_one(core):
    """One list alone: place 1 scores 1/61, place 2 scores 1/62."""
    fused = fuse(core, {"dense": [("A", 0.9), ("B", 0.8)]})
    assert [item.id for item in fused] == ["A", "B"], "one list alone keeps its own order"
    near(fused[0].score, 1 / 61, "ranks start at 1, so place 1 is worth 1 / (60 + 1)")
    near(fused[1].score, 1 / 62, "place 2 is worth 1 / (60 + 2)")


@check("05.1", "hybrid_search", "core.py")
def lists_add_up(core):
    """The lists of the lesson give A, C, B, E, D."""
    fused = {item.id: item for item in fuse(core, HAND)}
    assert set(fused) == set("ABCDE"), "every passage of every list takes part, and each once"
    near(fused["A"].score, 1 / 61 + 1 / 62, "A is first in one list and second in the other")
    order = [item.id for item in fuse(core, HAND)]
    assert order == list("ACBED"), f"got {', '.join(order)}: sort by score, the highest first"


@check("05.1", "hybrid_search", "core.py")
def scores_of_lists_do_not_count(core):
    """Another scale of the lists' own scores changes nothing."""
    large = {name: [(p, 1000 * score) for p, score in ranked] for name, ranked in HAND.items()}
    one = [(i.id, i.score) for i in fuse(core, HAND)]
    two = [(i.id, i.score) for i in fuse(core, large)]
    assert one == two, "the fused score must come from ranks, never from the lists' own scores"


@check("05.1", "hybrid_search", "core.py")
def weights_count(core):
    """A weight multiplies every term of its list."""
    fused = fuse(core, HAND, weights={"dense": 1.0, "sparse": 4.0})
    scores = {item.id: item.score for item in fused}
    near(scores["A"], 1 / 61 + 4 / 62, "each term is weight / (k + rank)")
    assert [item.id for item in fused][:2] == ["C", "A"], "the heavy list's first passage leads"


@check("05.1", "hybrid_search", "core.py")
def no_weight_leaves_a_list_out(core):
    """A list with weight 0, or without a weight, does not take part."""
    for weights in ({"dense": 1.0, "sparse": 0.0}, {"dense": 1.0}):
        fused = fuse(core, HAND, weights=weights)
        found = {item.id for item in fused}
        assert "E" not in found, f"E is in the sparse list only, whose weight in {weights} is none"
        assert all("sparse" not in i.provenance for i in fused), "nor does it enter provenance"


@check("05.1", "hybrid_search", "core.py")
def k_is_used(core):
    """k is the parameter, not always 60."""
    fused = fuse(core, {"dense": [("A", 1.0)]}, k=1.0)
    near(fused[0].score, 1 / 2, "with k = 1, place 1 is worth 1 / (1 + 1)")


@check("05.1", "hybrid_search", "core.py")
def ties_are_ordered_by_id(core):
    """Equal scores are ordered by id, whatever the order of the lists."""
    one = fuse(core, {"dense": [("B", 1.0)], "sparse": [("A", 1.0)]})
    two = fuse(core, {"sparse": [("A", 1.0)], "dense": [("B", 1.0)]})
    for fused in (one, two):
        order = [item.id for item in fused]
        assert order == ["A", "B"], f"got {', '.join(order)}: on equal scores, sort by id"


@check("05.1", "hybrid_search", "core.py")
def provenance_is_kept(core):
    """Each passage keeps its rank and score in each list that had it."""
    fused = {item.id: item for item in fuse(core, HAND)}
    assert set(fused["A"].provenance) == {"dense", "sparse"}, "A is in both lists"
    place = fused["A"].provenance["sparse"]
    assert (place.rank, place.score) == (2, 9.1), "Place holds the rank, then the list's own score"
    assert set(fused["D"].provenance) == {"dense"}, "D is in the dense list only"


@check("05.1", "hybrid_search", "core.py")
def same_as_the_reference(core):
    """On a hundred drawn lists it agrees with the reference."""
    import random

    draw = random.Random(5)
    for _ in range(100):
        lists = {
            name: [
                (f"p{n}", 1 - place / 10)
                for place, n in enumerate(draw.sample(range(30), draw.randint(0, 5)))
            ]
            for name in ("dense", "dense_english", "sparse")
        }
        weights = {name: draw.choice([0.0, 0.5, 1.0, 2.0]) for name in lists}
        mine = [item.id for item in fuse(core, lists, weights=weights, k=20.0)]
        right = [i.id for i in domain.reciprocal_rank_fusion(lists, weights=weights, k=20.0)]
        said = f"with the weights {weights} and k = 20, {lists} give {mine}, not {right}"
        assert mine == right, said


def asked(core, ask, names):
    return asyncio.run(core.ask_together(ask, names))


@check("05.2", "hybrid_search", "fan_out.py")
def answers_by_name(core):
    """Every name has its own answer, in the order of the names."""

    async def ask(name):
        await asyncio.sleep(0.02 if name == "a" else 0)
        return name.upper()

    answers = asked(core, ask, ["a", "b", "c"])
    assert isinstance(answers, dict), f"return a dictionary, not {type(answers).__name__}"
    assert answers == {"a": "A", "b": "B", "c": "C"}, f"got {answers}: each name its own answer"
    assert list(answers) == ["a", "b", "c"], "keep the order of the names, not that of arrival"


@check("05.2", "hybrid_search", "fan_out.py")
def all_at_once(core):
    """All are asked before the first has answered."""
    begun = []

    async def ask(name):
        begun.append(name)
        for _ in range(200):
            if len(begun) == 3:
                return name
            await asyncio.sleep(0.005)
        raise AssertionError(f"only {begun} had been asked after a second: start all, then wait")

    answers = asked(core, ask, ["a", "b", "c"])
    failed = [answer for answer in answers.values() if isinstance(answer, Exception)]
    assert not failed, str(failed[0])


@check("05.2", "hybrid_search", "fan_out.py")
def one_failure_stays_alone(core):
    """A list that fails leaves its exception in its place, and the others their answers."""
    gone = ConnectionError("gone")

    async def ask(name):
        if name == "b":
            raise gone
        await asyncio.sleep(0.01)
        return name

    try:
        answers = asked(core, ask, ["a", "b", "c"])
    except ConnectionError as error:
        raise AssertionError("the failure of b was raised, and a and c were lost") from error
    assert set(answers) == {"a", "b", "c"}, "the one that failed must not be missing"
    assert answers["b"] is gone, f"b holds {answers['b']!r}, not the exception that it raised"
    assert (answers["a"], answers["c"]) == ("a", "c"), "the others keep their answers"


@check("05.2", "hybrid_search", "fan_out.py")
def nothing_to_ask(core):
    """Without names the result is empty, at once."""

    async def ask(name):
        raise AssertionError("nothing was to be asked")

    started = time.perf_counter()
    assert asked(core, ask, []) == {}, "no names, no answers: {}"
    assert time.perf_counter() - started < 1, "it waited for something"
