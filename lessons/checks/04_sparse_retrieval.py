"""The checks of lesson 04."""

from __future__ import annotations

import math

from services.sparse_retrieval import bm25
from workshop.exercises import check
import itertools


def near(found, expected, hint):
    assert found is not None, "the function returns nothing: is there a return?"
    assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12), (
        f"got {found:.4f}, not {expected:.4f}: {hint}"
    )


@check("04.1", "sparse_retrieval", "rarity.py")
def breaker_by_hand(rarity):
    """Two of five sentences hold "breaker": ln(1 + 3.5 / 2.5)."""
    found = rarity.inverse_document_frequency(5, 2)
    near(found, math.log(2.4), "math.log of 1 + (5 - 2 + 0.5) / (2 + 0.5)")


@check("04.1", "sparse_retrieval", "rarity.py")
def the_rarer_the_more(rarity):
    """The fewer passages hold a word, the more it weighs."""
    weights = [rarity.inverse_document_frequency(100, n) for n in range(1, 101)]
    pairs = itertools.pairwise(weights)
    assert all(a > b for a, b in pairs), "a rarer word must weigh more: n is what you divide by"


@check("04.1", "sparse_retrieval", "rarity.py")
def never_negative(rarity):
    """A word that every passage holds still weighs a little more than nothing."""
    found = rarity.inverse_document_frequency(5, 5)
    assert found > 0, f"got {found:.4f}: without the 1 or the halves it falls to zero or less"
    near(found, math.log(1 + 0.5 / 5.5), "with n = N the fraction is 0.5 / (N + 0.5)")


@check("04.1", "sparse_retrieval", "rarity.py")
def idf_is_the_reference(rarity):
    """For every count of a collection of 810 it agrees with the reference."""
    for holding in range(1, 811):
        found = rarity.inverse_document_frequency(810, holding)
        near(found, bm25.inverse_document_frequency(810, holding), f"N = 810 and n = {holding}")


@check("04.2", "sparse_retrieval", "frequency.py")
def once_at_average_length(frequency):
    """Once, in a sentence of average length, counts 1."""
    near(frequency.term_frequency(1, 10, 10.0), 1.0, "2.2 / (1 + 1.2): k1 + 1 above, a sum below")


@check("04.2", "sparse_retrieval", "frequency.py")
def repetition_saturates(frequency):
    """Twice counts more than once but not twice as much, and a thousand times stays below k1 + 1."""
    once, twice, often = (frequency.term_frequency(c, 10, 10.0) for c in (1, 2, 1000))
    assert once < twice < 2 * once, f"once {once:.3f}, twice {twice:.3f}: divide by count + k1·…"
    assert often < 2.2, f"a thousand times counts {often:.2f}: the limit is k1 + 1 = 2.2"


@check("04.2", "sparse_retrieval", "frequency.py")
def long_passages_pay(frequency):
    """The same word counts less in a passage longer than the average, and more in a shorter one."""
    short, mean, long = (frequency.term_frequency(1, n, 10.0) for n in (5, 10, 20))
    assert long < mean < short, (
        f"length 5: {short:.3f}, 10: {mean:.3f}, 20: {long:.3f}: "
        "length / average stands below the line"
    )
    near(long, 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2)), "length / average is 2, multiplied by b = 0.75")


@check("04.2", "sparse_retrieval", "frequency.py")
def b_is_used(frequency):
    """With b = 0 the length does not count; with b = 1 it counts in full."""
    one, two = (frequency.term_frequency(2, n, 10.0, b=0.0) for n in (5, 50))
    near(one, two, "with b = 0 every length is the same: 1 - b + b * length / average is 1")
    near(frequency.term_frequency(1, 20, 10.0, b=1.0), 2.2 / 3.4, "with b = 1: 2.2 / (1 + 1.2·2)")


@check("04.2", "sparse_retrieval", "frequency.py")
def k1_is_used(frequency):
    """With k1 = 0 only presence counts; a larger k1 lets repetition count for longer."""
    near(frequency.term_frequency(7, 20, 10.0, k1=0.0), 1.0, "with k1 = 0: count / count")
    near(frequency.term_frequency(4, 10, 10.0, k1=4.0), 2.5, "with k1 = 4: 4·5 / (4 + 4)")


@check("04.2", "sparse_retrieval", "frequency.py")
def frequency_is_the_reference(frequency):
    """On counts and lengths of all sizes it agrees with the reference."""
    for count in (1, 2, 3, 10):
        for length in (1, 7, 40, 184, 1000):
            expected = bm25.term_frequency(count, length, 96.5)
            found = frequency.term_frequency(count, length, 96.5)
            near(found, expected, f"count {count}, length {length}, average 96.5")
