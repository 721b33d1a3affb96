"""The checks of lesson 08."""

from __future__ import annotations

import random

from services.context_aggregation import domain
from services.context_aggregation.domain import Counted, Piece
from workshop.exercises import check

LONG = "the breaker opens after five failures in a row and stays open for half a minute then it"
OTHER = "a cache keeps the answers of slow calls for later use until its entries expire"
MORE = "lets one call through to see whether the service is well again or still gone"


def found(duplicates, texts, similarity=0.8):
    result = duplicates.find_duplicates(texts, similarity)
    assert isinstance(result, dict), f"return a dictionary, not {type(result).__name__}"
    return result


@check("08.1", "context_aggregation", "duplicates.py")
def a_copy_points_to_the_first(duplicates):
    """A copy is found, and points back to the text before it."""
    result = found(duplicates, [LONG, OTHER, LONG])
    assert 0 not in result, "the first of two stays: it is the better one. The later is dropped"
    assert result == {2: 0}, f"got {result}: text 2 repeats text 0, with another between them"
    assert found(duplicates, [LONG, OTHER]) == {}, "two different texts repeat nothing"
    assert found(duplicates, []) == {}, "no texts, no duplicates: {}"


@check("08.1", "context_aggregation", "duplicates.py")
def a_changed_word_is_a_copy_all_the_same(duplicates):
    """A long text with one word changed repeats it."""
    text = f"{LONG} {MORE}"
    result = found(duplicates, [text, text.replace("minute", "hour")])
    assert result == {1: 0}, (
        f"got {result}: 28 of 34 triples are shared, 0.82. Compare triples, not the whole text"
    )


@check("08.1", "context_aggregation", "duplicates.py")
def similarity_is_used(duplicates):
    """The limit is the parameter, not always 0.8."""
    text = f"{LONG} {MORE}"
    changed = [text, text.replace("minute", "hour")]
    assert found(duplicates, changed, 0.9) == {}, "0.82 is below a limit of 0.9"
    shorter = [LONG, LONG.replace("minute", "hour")]
    assert found(duplicates, shorter, 0.5) == {1: 0}, "13 of 19 triples is above a limit of 0.5"


@check("08.1", "context_aggregation", "duplicates.py")
def the_order_of_words_counts(duplicates):
    """The same words in another order are another text."""
    turned = " ".join(reversed(LONG.split()))
    assert found(duplicates, [LONG, turned]) == {}, "compare word triples, not single words"


@check("08.1", "context_aggregation", "duplicates.py")
def a_part_of_an_earlier_text_is_found(duplicates):
    """A text that lies inside an earlier one adds nothing."""
    result = found(duplicates, [f"{LONG} {MORE}", LONG])
    assert result == {1: 0}, f"got {result}: all triples of text 1 are in text 0 (the 95 % rule)"


@check("08.1", "context_aggregation", "duplicates.py")
def a_longer_text_stays(duplicates):
    """A later text that holds an earlier one and says more stays."""
    result = found(duplicates, [LONG, f"{LONG} {MORE}"])
    assert result == {}, f"got {result}: the later text says more. 95 % of *its own* triples count"


@check("08.1", "context_aggregation", "duplicates.py")
def compared_with_what_stays(duplicates):
    """A text is held against texts that stay, not against duplicates."""
    words = [f"w{n}" for n in range(60)]
    second = [*words[:57], "x", "y", "z"]
    third = [*second[:51], "q", "r", "s", *second[54:]]
    texts = [" ".join(w) for w in (words, second, third)]
    result = found(duplicates, texts)
    assert result.get(1) == 0, f"got {result}: text 1 shares 55 of 61 triples with text 0"
    assert 2 not in result, "text 2 is near text 1 only, and text 1 is not there any more"


@check("08.1", "context_aggregation", "duplicates.py")
def same_duplicates_as_the_reference(duplicates):
    """On a hundred drawn collections it agrees with the reference."""
    draw = random.Random(8)
    for _ in range(100):
        texts = []
        for _ in range(8):
            said = draw.choice(texts).split() if texts else LONG.split()
            said = said[: draw.randint(4, len(said))] if draw.random() < 0.3 else said
            if draw.random() < 0.6:
                said = [*said, *draw.sample(MORE.split(), draw.randint(0, 6))]
            texts.append(" ".join(said))
        limit = draw.choice([0.5, 0.8])
        mine, reference = found(duplicates, texts, limit), domain.find_duplicates(texts, limit)
        assert mine == reference, f"got {mine}, not {reference}, for {len(texts)} texts"


# -- fitting ------------------------------------------------------------------------------


def count(text):
    return len(text.split())


def piece(passage, place, parts, head="[n] Title", sizes=None):
    """Parts are texts; `sizes` stands in for their length where an estimate is to be wrong."""
    texts = {
        at: Counted(text, (lambda _, n=sizes[at]: n) if sizes else count)
        for at, text in parts.items()
    }
    return Piece(passage, place, texts, Counted(head, count))


def write(chosen):
    lines = []
    for number, passage in enumerate(sorted({p.passage for p in chosen}), start=1):
        mine = [p for p in chosen if p.passage == passage]
        parts = {at: text.text for p in mine for at, text in p.parts.items()}
        lines += [mine[0].head.text.replace("n", str(number), 1), *map(parts.get, sorted(parts))]
    return "\n".join(lines)


def longer(chosen):
    """A text that is longer than its parts, so that estimates are too small."""
    return write(chosen) + " and" * len(chosen)


def fitted(fit, pieces, budget, write=write, count=count):
    chosen = fit.fit(pieces, budget, write=write, count=count)
    assert chosen is not None, "the function returns nothing: is there a return?"
    strange = [p for p in chosen if not any(p is given for given in pieces)]
    assert not strange, (
        "a piece came back that was not given: a piece goes in whole, with its parts, or not at all"
    )
    return [pieces.index(p) for p in chosen]


COUNTS = "A breaker counts failures."
BY_EYE = [
    piece(0, 1, {0: COUNTS, 1: "It opens after five failures."}),
    piece(1, 0, {0: "A cache keeps the answers of slow calls for later use."}),
    piece(1, 1, {1: "Entries expire after a minute."}),
    piece(0, 0, {0: COUNTS}),
    piece(0, 2, {2: "Birds sing."}),
]


@check("08.2", "context_aggregation", "fit.py")
def the_lesson_s_five(fit):
    """A budget of 20 takes the first, the third and the fifth of the lesson's pieces."""
    taken = fitted(fit, BY_EYE, 20)
    assert 1 not in taken, "the second costs 11 + 2, and only 9 are left"
    assert 2 in taken, "the third fits (5 + 2 of 9): one that is too long does not end the choice"
    assert 3 not in taken, "the fourth came with the first: its place is taken"
    assert 4 in taken, "the fifth costs 2 and its heading is paid: exactly 20 is within 20"
    assert taken == [0, 2, 4], f"got {taken}: the order of the pieces is the order of the choice"


@check("08.2", "context_aggregation", "fit.py")
def everything_fits(fit):
    """With room for all, everything is taken, and each place once."""
    taken = fitted(fit, BY_EYE, 1000)
    assert taken == [0, 1, 2, 4], f"got {taken}: all but the fourth, which came with the first"


@check("08.2", "context_aggregation", "fit.py")
def nothing_fits(fit):
    """With room for none, the result is empty."""
    assert fitted(fit, BY_EYE, 3) == [], "no piece costs 3 or less with its heading"
    assert fitted(fit, [], 100) == [], "no pieces, no choice: []"


@check("08.2", "context_aggregation", "fit.py")
def headings_are_paid_once(fit):
    """Three short sentences of one passage pay one heading."""
    pieces = [piece(0, n, {n: "Three words here."}) for n in range(3)]
    taken = fitted(fit, pieces, 11)
    assert taken == [0, 1, 2], f"got {taken}: 2 for the heading and 3 × 3 are 11"
    apart = [piece(n, 0, {0: "Three words here."}) for n in range(3)]
    assert fitted(fit, apart, 11) == [0, 1], "three passages have three headings: 3 × 5 is 15"


@check("08.2", "context_aggregation", "fit.py")
def headings_are_part_of_the_cost(fit):
    """The heading is counted before a piece is taken."""
    pieces = [
        piece(0, 0, {0: "Four words of text."}),
        piece(1, 0, {0: "Three words here."}),
        piece(0, 1, {1: "Now three more."}),
    ]
    taken = fitted(fit, pieces, 10)
    assert taken == [0, 2], (
        f"got {taken}: after 6 of 10, the second costs 3 + 2 and does not fit; the third costs 3"
    )


@check("08.2", "context_aggregation", "fit.py")
def shared_parts_are_paid_once(fit):
    """What a piece before it has brought costs nothing more."""
    pieces = [
        piece(0, 1, {0: "A sentence of five words.", 1: "It has two."}),
        piece(0, 2, {0: "A sentence of five words.", 2: "It has three."}),
    ]
    taken = fitted(fit, pieces, 13)
    assert taken == [0, 1], f"got {taken}: 2 + 5 + 3, and then only 3 more, for part 2 alone"


@check("08.2", "context_aggregation", "fit.py")
def the_finished_text_counts(fit):
    """Where the estimates are too small, the last pieces are taken back."""
    pieces = [piece(n, 0, {0: "Five words are in here."}, sizes={0: 1}) for n in range(4)]
    taken = fitted(fit, pieces, 15)
    length = count(write([pieces[n] for n in taken]))
    assert length <= 15, f"the finished text has {length} tokens of 15: count(write(chosen))"
    assert taken == [0, 1], f"got {taken}: take back the piece chosen last, as often as needed"
    assert fitted(fit, pieces, 4) == [], "if not even the first fits, nothing is left"


@check("08.2", "context_aggregation", "fit.py")
def an_empty_choice_ends(fit):
    """It ends even when an empty choice is still too long."""
    assert fitted(fit, BY_EYE, 20, write=lambda chosen: "word " * 30) == [], (
        "stop when there is nothing left to take back"
    )


@check("08.2", "context_aggregation", "fit.py")
def same_choice_as_the_reference(fit):
    """On two hundred drawn sets of pieces it agrees with the reference, within the budget."""
    draw = random.Random(8)
    for _ in range(200):
        pieces = []
        for passage in range(draw.randint(1, 4)):
            texts = [" ".join(["word"] * draw.randint(1, 12)) for _ in range(6)]
            for place in range(6):
                leans = {place - 1, place} if place and draw.random() < 0.4 else {place}
                pieces.append(piece(passage, place, {at: texts[at] for at in leans}))
        draw.shuffle(pieces)
        budget = draw.randint(1, 80)
        reference = domain.fit_budget(pieces, budget, write=longer, count=count)
        mine = fitted(fit, pieces, budget, write=longer)
        assert count(longer([pieces[n] for n in mine])) <= budget, f"more than {budget} tokens"
        wanted = [next(n for n, p in enumerate(pieces) if p is given) for given in reference]
        assert mine == wanted, f"got {mine}, not {wanted}, with a budget of {budget}"
