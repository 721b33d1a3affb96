"""The checks of lesson 10."""

from __future__ import annotations

import math
import random

from stdnum.br import cpf as standard

from services.post_processing import domain, grounding
from workshop.exercises import check

HEAD = frozenset({"circuit", "breaker"})
PARTS = [
    frozenset({"breaker", "open", "failur", "row"}),
    frozenset({"open", "call", "fail", "onc"}),
    frozenset({"trial", "call", "let"}),
]


def share(support, claim, parts=PARTS, head=HEAD):
    found = support.share_of_claim(claim, list(parts), head)
    assert found is not None, "the function returns nothing: is there a return?"
    assert isinstance(found, tuple), f"return (share, place), not {found!r}"
    assert len(found) == 2, f"return (share, place), not {found!r}"
    return found


def near(found, expected, hint):
    assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12), (
        f"got {found:.3f}, not {expected:.3f}: {hint}"
    )


@check("10.1", "post_processing", "support.py")
def all_or_nothing(support):
    """A claim that is all there has 1, one that is nowhere has 0."""
    near(share(support, {"failur": 1.0, "row": 1.0})[0], 1.0, "both words are in the first pair")
    near(share(support, {"netflix": 2.0, "bank": 1.0})[0], 0.0, "no word of it is in the source")


@check("10.1", "post_processing", "support.py")
def the_share_is_the_claim_s(support):
    """Divided by the claim's weight, not by the source's size."""
    found, _ = share(support, {"failur": 1.0, "netflix": 1.0})
    near(found, 0.5, "one of the claim's two words is there; how long the source is does not count")


@check("10.1", "post_processing", "support.py")
def weights_count(support):
    """A rare word weighs more than a common one."""
    found, _ = share(support, {"failur": 1.0, "netflix": 3.0})
    near(found, 0.25, "1 of the weight 1 + 3 is there: add weights, not words")


@check("10.1", "post_processing", "support.py")
def the_title_stands_beside_each_pair(support):
    """Words of the head count in full."""
    near(share(support, {"circuit": 1.0, "trial": 1.0})[0], 1.0, "circuit is in the head")


@check("10.1", "post_processing", "support.py")
def a_word_far_away_counts_half(support):
    """A word of another place in the source counts half."""
    found, _ = share(support, {"row": 1.0, "trial": 1.0})
    assert not math.isclose(found, 1.0), (
        "row is in the first sentence, trial in the third: no pair has both. Near means two neighbours"
    )
    assert not math.isclose(found, 0.5), (
        "trial is elsewhere in the source: it counts half, not nothing"
    )
    near(found, 0.75, "1 for row and a half for trial, of 2")


@check("10.1", "post_processing", "support.py")
def two_neighbours_are_a_pair(support):
    """Words of two adjacent sentences count in full, at the end of the source too."""
    near(share(support, {"failur": 1.0, "onc": 1.0})[0], 1.0, "sentences 0 and 1 are a pair")
    near(share(support, {"onc": 1.0, "trial": 1.0})[0], 1.0, "sentences 1 and 2, the last pair")


@check("10.1", "post_processing", "support.py")
def the_place_is_that_of_the_best_pair(support):
    """The place of the best pair's first sentence; of equal pairs the first."""
    assert share(support, {"trial": 1.0, "let": 1.0})[1] == 1, "sentences 1 and 2: place 1"
    assert share(support, {"failur": 1.0})[1] == 0, "only the first pair has it: place 0"
    place = share(support, {"call": 1.0})[1]
    assert place == 0, f"got {place}: both pairs hold the same, so the first is taken"


@check("10.1", "post_processing", "support.py")
def short_sources(support):
    """A source of one sentence, or of a title alone, is tried as well."""
    near(share(support, {"open": 1.0, "bank": 1.0}, PARTS[:1])[0], 0.5, "one sentence is no pair")
    near(share(support, {"breaker": 1.0, "bank": 1.0}, [])[0], 0.5, "a head without sentences")


@check("10.1", "post_processing", "support.py")
def same_share_as_the_reference(support):
    """On two hundred drawn sources it agrees with the reference."""
    draw = random.Random(10)
    words = [f"word{n}" for n in range(30)]
    for _ in range(200):
        parts = [
            frozenset(draw.sample(words, draw.randint(0, 6))) for _ in range(draw.randint(0, 6))
        ]
        claim = {word: draw.randint(1, 8) / 4 for word in draw.sample(words, draw.randint(1, 8))}
        head = frozenset(draw.sample(words, 2))
        mine = share(support, dict(claim), parts, head)
        reference = grounding.share_in_two_sentences(claim, parts, head)
        near(mine[0], reference[0], f"a claim of {len(claim)} words, {len(parts)} sentences")
        assert mine[1] == reference[1], (
            f"got place {mine[1]}, not {reference[1]}, among {len(parts)} sentences"
        )


# -- citations ----------------------------------------------------------------------------


def settled(citations, given, scores, least=None):
    found = citations.settle_citations(list(given), scores, least or dict.fromkeys(scores, 0.5))
    assert isinstance(found, list), f"return a list of numbers, not {found!r}"
    return found


@check("10.2", "post_processing", "citations.py")
def a_right_citation_stays(citations):
    """What the model cited rightly stays, even where another source is better."""
    assert settled(citations, [1], {1: 0.9, 2: 0.1}) == [1], "source 1 supports the sentence"
    found = settled(citations, [1], {1: 0.6, 2: 0.9})
    assert found == [1], (
        f"got {found}: [1] is right, so it stays; the best is for sentences without"
    )


@check("10.2", "post_processing", "citations.py")
def an_invented_number_goes(citations):
    """A number that no source has is removed."""
    for number in (0, 3, 7, 99):
        found = settled(citations, [1, number], {1: 0.9, 2: 0.8})
        assert found == [1], f"got {found}: only 1 and 2 exist, so [{number}] was made up"
        found = settled(citations, [number], {1: 0.9, 2: 0.8})
        assert number not in found, f"[{number}] was made up: a link to nothing"
        assert found == [1], f"got {found}: without its number the sentence gets its best source"


@check("10.2", "post_processing", "citations.py")
def numbers_may_have_gaps(citations):
    """Sources are those of `scores`, whatever their numbers."""
    assert settled(citations, [5], {2: 0.9, 5: 0.8}) == [5], "source 5 exists, it is in scores"
    assert settled(citations, [1], {2: 0.9, 5: 0.8}) == [2], "source 1 does not exist here"


@check("10.2", "post_processing", "citations.py")
def a_source_must_support_its_sentence(citations):
    """A number that exists but does not support the sentence is moved."""
    found = settled(citations, [2], {1: 0.9, 2: 0.1})
    assert found == [1], (
        f"got {found}: [2] exists, but says something else. [1] supports the sentence"
    )
    found = settled(citations, [2, 1], {1: 0.9, 2: 0.1})
    assert found == [1], f"got {found}: [2] goes and [1] stays"


@check("10.2", "post_processing", "citations.py")
def a_missing_citation_is_added(citations):
    """A sentence without a number gets the best source that supports it."""
    found = settled(citations, [], {1: 0.6, 2: 0.9, 3: 0.7})
    assert found == [2], f"got {found}: one citation, of the best source"
    found = settled(citations, [], {3: 0.8, 2: 0.8, 1: 0.2})
    assert found == [2], f"got {found}: of two equal ones, the lower number"


@check("10.2", "post_processing", "citations.py")
def nothing_supports_it(citations):
    """A sentence that no source supports gets nothing, so that the service drops it."""
    found = settled(citations, [1], {1: 0.3, 2: 0.4})
    assert found == [], f"got {found}: 0.4 is not enough, and the best of bad sources is no source"
    assert settled(citations, [1], {}) == [], "without sources nothing can be cited"


@check("10.2", "post_processing", "citations.py")
def enough_is_said_by_least(citations):
    """Each source has its own limit, and to reach it is enough."""
    least = {1: 0.5, 2: 0.3}
    found = settled(citations, [2], {1: 0.4, 2: 0.4}, least)
    assert found == [2], f"got {found}: 0.4 is enough for source 2, whose limit is 0.3"
    found = settled(citations, [1], {1: 0.5, 2: 0.1}, least)
    assert found == [1], f"got {found}: 0.5 of 0.5 is enough"
    found = settled(citations, [1], {1: 1.0, 2: 0.6}, {1: math.inf, 2: 0.5})
    assert found == [2], f"got {found}: source 1 lacks a figure, its limit is infinite"


@check("10.2", "post_processing", "citations.py")
def order_and_doubles(citations):
    """The order is the model's, and each number comes once."""
    found = settled(citations, [3, 1], {1: 0.7, 2: 0.9, 3: 0.6})
    assert found == [3, 1], f"got {found}: what stays, stays in the model's order"
    assert settled(citations, [1, 1], {1: 0.7}) == [1], "[1][1] is one citation"


@check("10.2", "post_processing", "citations.py")
def same_citations_as_the_reference(citations):
    """On five hundred drawn sentences it agrees with the reference."""
    draw = random.Random(10)
    for _ in range(500):
        scores = {n: draw.randint(0, 10) / 10 for n in draw.sample(range(1, 7), draw.randint(0, 5))}
        least = {n: draw.choice([0.3, 0.5, math.inf]) for n in scores}
        given = draw.sample(range(9), draw.randint(0, 4))
        mine = settled(citations, given, dict(scores), dict(least))
        reference = domain.settle_citations(given, scores, least)
        assert mine == reference, (
            f"got {mine}, not {reference}, for given={given}, scores={scores}, least={least}"
        )


# -- personal data ------------------------------------------------------------------------


def verdict(cpf, digits):
    found = cpf.is_cpf(digits)
    assert isinstance(found, bool), f"return True or False, not {found!r}"
    return found


@check("10.3", "post_processing", "cpf.py")
def the_example_by_hand(cpf):
    """111.444.777-35, computed in the lesson, is one."""
    assert verdict(cpf, "11144477735"), "3 and 5 are its check digits: see the two sums"


@check("10.3", "post_processing", "cpf.py")
def a_wrong_digit_is_seen(cpf):
    """Each single wrong digit makes it something else."""
    right = "11144477735"
    for place, digit in enumerate(right):
        other = right[:place] + str((int(digit) + 1) % 10) + right[place + 1 :]
        assert not verdict(cpf, other), (
            f"{other} is no CPF: digit {place + 1} was changed. Eleven digits alone prove nothing"
        )


@check("10.3", "post_processing", "cpf.py")
def remainders_of_zero_and_one(cpf):
    """Where the remainder is 0 or 1, the check digit is 0."""
    for digits, which in (
        ("21617283509", "first sum leaves 0"),
        ("39053344705", "first sum leaves 1"),
        ("21123456720", "second sum leaves 0"),
        ("22728393800", "second sum leaves 1"),
    ):
        assert verdict(cpf, digits), f"{digits} is a CPF: its {which}, so that digit is 0"


@check("10.3", "post_processing", "cpf.py")
def equal_digits_are_no_cpf(cpf):
    """Eleven equal digits pass the arithmetic, and are refused all the same."""
    for digit in "0123456789":
        assert not verdict(cpf, digit * 11), f"{digit * 11}: the sums agree, but nobody has it"


@check("10.3", "post_processing", "cpf.py")
def other_lengths_are_no_cpf(cpf):
    """Ten or twelve digits, or none, are no CPF, and raise nothing."""
    for digits in ("", "1", "1114447773", "111444777350", "11222333000181"):
        assert not verdict(cpf, digits), f"{digits!r} has {len(digits)} digits: a CPF has eleven"


@check("10.3", "post_processing", "cpf.py")
def same_verdict_as_the_library(cpf):
    """On three thousand numbers it agrees with python-stdnum."""
    draw = random.Random(10)
    for _ in range(1000):
        base = f"{draw.randrange(10**9):09}"
        ends = (f"{base}{end:02}" for end in range(100))
        right = next(digits for digits in ends if standard.is_valid(digits))
        swapped = right[:9] + right[10] + right[9]
        drawn = f"{draw.randrange(10**11):011}"
        for digits in (right, swapped, drawn):
            expected = standard.is_valid(digits) and len(set(digits)) > 1
            kind = "a CPF" if expected else "no CPF"
            assert verdict(cpf, digits) == expected, f"{digits} is {kind}, by python-stdnum"
