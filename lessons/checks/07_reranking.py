"""The checks of lesson 07."""

from __future__ import annotations

import math

import numpy as np

from services.reranking import late_interaction, promotion
from services.reranking.store import TokenVectors
from workshop.exercises import check

QUERY = np.eye(2, dtype=np.float32)
"""Two tokens at right angles: a passage token's two numbers are its similarities to them."""


def passage(*tokens):
    return TokenVectors.pack(np.array(tokens, np.float32).reshape(len(tokens), 2))


A = passage((0.9, 0.3), (0.2, 0.4), (0.1, 0.8))
B = passage((0.5, 0.5), (0.6, 0.7), (0.4, 0.6))


def scored(score, query, passages, weights=None):
    result = score.max_sim(query, passages, weights)
    assert result is not None, "the function returns nothing: is there a return?"
    assert len(result) == len(passages), f"{len(passages)} passages, {len(result)} scores"
    return [float(value) for value in result]


def near(found, expected, hint):
    assert math.isclose(found, expected, abs_tol=0.006), f"got {found:.3f}, not {expected}: {hint}"


@check("07.1", "reranking", "score.py")
def each_query_token_has_its_best_partner(score):
    """Passage A of the lesson scores (0.9 + 0.8) / 2, and B (0.6 + 0.7) / 2."""
    a, b = scored(score, QUERY, [A, B])
    near(a, 0.85, "for each query token take the largest similarity, then the mean of the two")
    near(b, 0.65, "B's best partners are 0.6 and 0.7")


@check("07.1", "reranking", "score.py")
def the_maximum_is_over_the_passage(score):
    """Tokens that the query does not need cost nothing."""
    padded = passage((0.9, 0.3), (0.1, 0.8), (0.0, 0.0), (-0.9, -0.5), (0.0, 0.1))
    found = scored(score, QUERY, [padded])[0]
    near(found, 0.85, "take the maximum over the passage's tokens, one for each query token")
    one = scored(score, QUERY, [passage((1.0, 0.0))])[0]
    near(one, 0.5, "the second query token finds nothing here, and counts with its 0")


@check("07.1", "reranking", "score.py")
def a_long_query_is_no_better(score):
    """The score is a mean: the same query said twice scores the same."""
    twice = scored(score, np.concatenate([QUERY, QUERY]), [A])[0]
    near(twice, 0.85, "divide by the number of query tokens, or long queries score higher")


@check("07.1", "reranking", "score.py")
def weights_count(score):
    """With weights 3 and 1, A scores (3 · 0.9 + 0.8) / 4."""
    found = scored(score, QUERY, [A], np.array([3.0, 1.0]))[0]
    near(found, 0.875, "a weighted mean: np.average(best, weights=weights)")
    scaled = scored(score, QUERY, [A], np.array([30.0, 10.0]))[0]
    near(scaled, 0.875, "ten times all the weights is the same mean: divide by their sum")


@check("07.1", "reranking", "score.py")
def nothing_to_compare_is_the_least_score(score):
    """Without tokens on either side the score is -1, and the others keep their places."""
    empty = TokenVectors.pack(np.zeros((0, 2), np.float32))
    found = scored(score, QUERY, [A, empty, B])
    near(found[1], -1.0, "a passage without tokens gets -1, the least that a cosine can be")
    near(found[0], 0.85, "each passage keeps its own score, in the order given")
    near(found[2], 0.65, "each passage keeps its own score, in the order given")
    none = scored(score, np.zeros((0, 2), np.float32), [A, B])
    assert none == [-1.0, -1.0], f"got {none}: a query without tokens gives -1 to all"


@check("07.1", "reranking", "score.py")
def same_as_the_reference(score):
    """On fifty drawn queries it agrees with the reference."""
    draw = np.random.default_rng(7)

    def unit(tokens):
        rows = draw.normal(size=(tokens, 16)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    for number in range(50):
        query = unit(int(draw.integers(1, 9)))
        passages = [TokenVectors.pack(unit(int(draw.integers(1, 30)))) for _ in range(6)]
        weights = draw.uniform(0.1, 3, len(query)) if number % 2 else None
        mine = scored(score, query, passages, weights)
        reference = late_interaction.max_sim(query, passages, weights)
        assert np.allclose(mine, reference, atol=1e-4), (
            f"got {np.round(mine, 3)}, the reference gives {np.round(reference, 3)}"
        )


# -- the gate -----------------------------------------------------------------------------

IDS = [f"q{number}" for number in range(60)]
LANGUAGES = {name: ("en", "pt")[number % 2] for number, name in enumerate(IDS)}


def arms(gain):
    """(serving, candidate): questions of very different difficulty, and `gain(number)` each."""
    serving = {name: 0.1 + 0.7 * ((number * 37) % 60) / 60 for number, name in enumerate(IDS)}
    return serving, {name: serving[name] + gain(number) for number, name in enumerate(IDS)}


def decided(gate, serving, candidate, languages=LANGUAGES):
    decision = gate.decide(serving, candidate, languages)
    assert isinstance(decision, promotion.Decision), (
        f"return a Decision, not {type(decision).__name__}"
    )
    return decision


@check("07.2", "reranking", "gate.py")
def a_steady_gain_is_promoted(gate):
    """A small gain on every question is promoted, however different the questions are."""
    decision = decided(gate, *arms(lambda n: 0.01 + 0.01 * (n % 3)))
    assert decision.promoted, (
        f"refused, [{decision.low:+.3f}, {decision.high:+.3f}]: draw the differences question by "
        "question. The interval is that of their mean"
    )
    assert math.isclose(decision.mean, 0.02, abs_tol=1e-6), "mean is that of the differences"
    assert 0.016 < decision.low < 0.02 < decision.high < 0.024, (
        f"[{decision.low:+.3f}, {decision.high:+.3f}] is not the interval of the mean difference"
    )


@check("07.2", "reranking", "gate.py")
def a_gain_by_luck_is_refused(gate):
    """A mean gain whose interval holds zero is refused."""
    decision = decided(gate, *arms(lambda n: 0.3 if n % 7 == 0 else -0.03))
    assert not decision.promoted, (
        "promoted a gain of +0.02 that comes from a few questions: the lower end must be above 0"
    )
    assert decision.low < 0 < decision.high, (
        f"[{decision.low:+.3f}, {decision.high:+.3f}] leaves out zero: draw with replacement, as "
        "many as there are questions"
    )


@check("07.2", "reranking", "gate.py")
def a_worse_one_is_refused(gate):
    """Worse, or just the same, is refused."""
    assert not decided(gate, *arms(lambda n: -0.05)).promoted, "promoted one that is worse"
    assert not decided(gate, *arms(lambda n: 0.0)).promoted, "promoted one that changes nothing"


@check("07.2", "reranking", "gate.py")
def pairs_are_made_by_question(gate):
    """The same questions in another order are the same evidence."""
    serving, candidate = arms(lambda n: 0.01 + 0.01 * (n % 3))
    decision = decided(gate, serving, dict(reversed(candidate.items())))
    assert decision.low > 0.015, (
        f"low is {decision.low:+.3f}: pair by question id, candidate[id] - serving[id]. The "
        "place in the dictionary says nothing"
    )


@check("07.2", "reranking", "gate.py")
def no_language_pays_for_the_other(gate):
    """A language that loses more than 0.02 stops the promotion, and the reason names it."""
    decision = decided(gate, *arms(lambda n: -0.03 if n % 2 else 0.2))
    assert not decision.promoted, "pt loses 0.03 and is hidden by what en gains: look at each alone"
    assert "pt" in decision.reason, f"the reason is {decision.reason!r}: name the language"
    small = decided(gate, *arms(lambda n: -0.01 if n % 2 else 0.2))
    assert small.promoted, "pt loses 0.01 only: that is within the 0.02 that a language may lose"


@check("07.2", "reranking", "gate.py")
def the_same_evidence_has_the_same_decision(gate):
    """Two runs decide alike: the draws have a fixed seed."""
    evidence = arms(lambda n: 0.1 * math.sin(n))  # no two alike: unseeded, no two intervals are
    one, two = decided(gate, *evidence), decided(gate, *evidence)
    assert (one.low, one.high) == (two.low, two.high), "give the generator a seed, such as 7"


@check("07.2", "reranking", "gate.py")
def near_the_reference(gate):
    """On drawn evidence it decides as the reference does."""
    draw = np.random.default_rng(3)
    widths = []
    for shift in (-0.1, -0.04, 0.0, 0.04, 0.1):
        gains = draw.normal(shift, 0.1, len(IDS))
        serving, candidate = arms(lambda n, gains=gains: float(gains[n]))
        mine = decided(gate, serving, candidate)
        reference = promotion.decide(serving, candidate, LANGUAGES)
        assert bool(mine.promoted) == reference.promoted, f"the reference says: {reference}"
        assert abs(mine.low - reference.low) < 0.01, f"low is {mine.low:+.3f}, not {reference}"
        widths.append((mine.high - mine.low) / (reference.high - reference.low))
    assert 0.93 < np.mean(widths) < 1.07, (
        f"your intervals are {np.mean(widths):.2f} times as wide as the reference's: take the 2.5th "
        "and the 97.5th percentile of the means"
    )
