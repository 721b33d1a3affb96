"""The checks of lesson 12."""

from __future__ import annotations

import asyncio
import math
import random

from services.feedback import domain
from services.feedback.domain import NotUnderstood, Unavailable
from workshop.exercises import check

IMPLICIT = ("citation_opened", "answer_copied", "question_reasked", "comment")


def counted(votes, acts):
    result = votes.count_votes(acts)
    assert result is not None, "the function returns nothing: is there a return?"
    assert len(tuple(result)) == 2, f"return two numbers, good and bad, not {result!r}"
    return tuple(result)


@check("12.1", "feedback", "votes.py")
def thumbs_are_votes(votes):
    """Three readers, three thumbs: two good, one bad."""
    acts = [("a", "thumbs", "1"), ("b", "thumbs", "-1"), ("c", "thumbs", "1")]
    result = counted(votes, acts)
    assert result != (0, 3), "values are text, as they are stored: compare with '1', not with 1"
    assert result != (1, 2), "return the good ones first, then the bad ones"
    assert result != (2, 3), "the second number is that of the bad votes, not of all"
    assert result == (2, 1), f"got {result}: '1' is good and '-1' is bad"
    assert counted(votes, []) == (0, 0), "no acts, no votes: (0, 0)"


@check("12.1", "feedback", "votes.py")
def stars_are_votes(votes):
    """4 and 5 stars are good, 1 and 2 are bad, 3 are neither."""
    acts = [(f"r{stars}", "stars", str(stars)) for stars in (1, 2, 3, 4, 5)]
    result = counted(votes, acts)
    assert result not in ((3, 2), (2, 3)), (
        f"got {result}: three stars are no vote, for neither side"
    )
    assert result == (2, 2), f"got {result}: 4 and 5 stars are good, 1 and 2 are bad"


@check("12.1", "feedback", "votes.py")
def a_correction_is_bad(votes):
    """Who writes a better answer rejects this one, whatever the text."""
    result = counted(votes, [("a", "correction", "It is four."), ("b", "correction", "1")])
    assert result == (0, 2), f"got {result}: a correction is a bad vote, and its text is no rating"


@check("12.1", "feedback", "votes.py")
def traces_of_use_are_no_votes(votes):
    """A citation opened, an answer copied, a question asked again: no votes."""
    for kind in IMPLICIT:
        result = counted(votes, [("a", kind, "1"), ("b", kind, "-1"), ("c", "thumbs", "1")])
        assert result == (1, 0), f"got {result}: {kind} is no explicit judgement, so it is no vote"


@check("12.1", "feedback", "votes.py")
def one_reader_is_one_vote(votes):
    """An angry reader who clicks four times is one bad vote."""
    acts = [
        ("a", "thumbs", "-1"),
        ("a", "stars", "1"),
        ("a", "correction", "No."),
        ("b", "stars", "5"),
    ]
    result = counted(votes, [*acts, ("a", "thumbs", "-1")])
    assert result == (1, 1), f"got {result}: count answers (request ids), not clicks"


@check("12.1", "feedback", "votes.py")
def the_last_word_counts(votes):
    """Who changes their mind is counted as they ended."""
    acts = [("a", "thumbs", "-1"), ("b", "thumbs", "1"), ("a", "thumbs", "1"), ("b", "stars", "2")]
    result = counted(votes, acts)
    assert result == (1, 1), f"got {result}: a ended with good and b with bad; later acts replace"
    result = counted(votes, [("c", "correction", "No."), ("c", "thumbs", "1")])
    assert result == (1, 0), (
        f"got {result}: c corrected first and then found it good: one good vote"
    )


@check("12.1", "feedback", "votes.py")
def three_stars_leave_an_earlier_word(votes):
    """Three stars, or a trace of use, after a thumb: the thumb stays."""
    for later in (("a", "stars", "3"), ("a", "question_reasked", "None"), ("a", "comment", "1")):
        result = counted(votes, [("a", "thumbs", "-1"), later])
        assert result == (0, 1), f"got {result}: {later[1:]} says nothing, so the thumb stays"


@check("12.1", "feedback", "votes.py")
def the_same_as_the_reference(votes):
    """On two hundred drawn logs it agrees with the reference."""
    draw = random.Random(12)
    kinds = [("thumbs", "1"), ("thumbs", "-1"), ("correction", "x")]
    kinds += [("stars", str(stars)) for stars in (1, 2, 3, 4, 5)] + [
        (kind, "1") for kind in IMPLICIT
    ]
    for _ in range(200):
        acts = [(f"r{draw.randint(1, 5)}", *draw.choice(kinds)) for _ in range(draw.randint(0, 12))]
        expected = domain.count_votes(acts)
        result = counted(votes, acts)
        assert result == expected, f"got {result}, not {expected}, for {acts}"


def ends(interval, good, votes, **more):
    result = interval.wilson(good, votes, **more)
    assert result is not None, "the function returns nothing: is there a return?"
    low, high = result
    assert low <= high, f"got ({low:.3f}, {high:.3f}): the low end comes first"
    return low, high


def near(found, expected, hint):
    assert math.isclose(found, expected, abs_tol=5e-4), f"got {found:.4f}, not {expected}: {hint}"


@check("12.2", "feedback", "interval.py")
def eighteen_of_twenty(interval):
    """18 good of 20: 0.699 to 0.972, as the handbook has it."""
    low, high = ends(interval, 18, 20)
    assert high <= 1, (
        f"got {high:.3f}: p ± z√(p(1−p)/n) leaves the range, and so does Wilson's formula without its "
        "division by 1 + z²/n"
    )
    near(low, 0.6990, "the middle is p + z²/2n, and everything is divided by 1 + z²/n")
    near(high, 0.9721, "the root holds p(1−p)/n + z²/4n²")


@check("12.2", "feedback", "interval.py")
def no_votes_say_nothing(interval):
    """Without votes everything from 0 to 1 is possible."""
    try:
        result = ends(interval, 0, 0)
    except ZeroDivisionError as error:
        raise AssertionError("0 of 0 divides by zero: return (0.0, 1.0) without votes") from error
    assert result == (0.0, 1.0), f"got {result}: without votes nothing is known, 0 to 1"


@check("12.2", "feedback", "interval.py")
def one_bad_vote_is_no_finding(interval):
    """0 good of 1 reaches up to 0.79, so one vote proves nothing."""
    low, high = ends(interval, 0, 1)
    assert high > 0.01, "the interval of 0 of 1 has no width: that is the textbook's, not Wilson's"
    near(low, 0.0, "the low end of 0 good votes is 0")
    near(high, 0.7935, "one vote leaves almost everything possible")


@check("12.2", "feedback", "interval.py")
def four_bad_votes_are_one(interval):
    """0 of 3 reaches above one half, 0 of 4 does not."""
    near(ends(interval, 0, 3)[1], 0.5615, "z²/(n + z²) is the upper end of 0 good votes")
    near(ends(interval, 0, 4)[1], 0.4899, "z²/(n + z²) is the upper end of 0 good votes")


@check("12.2", "feedback", "interval.py")
def good_and_bad_mirror_each_other(interval):
    """The interval of 3 good of 10 is that of 7 of 10, turned round."""
    low, high = ends(interval, 3, 10)
    other_low, other_high = ends(interval, 7, 10)
    near(low, round(1 - other_high, 4), "3 of 10 and 7 of 10 must mirror each other")
    near(high, round(1 - other_low, 4), "3 of 10 and 7 of 10 must mirror each other")


@check("12.2", "feedback", "interval.py")
def z_is_used(interval):
    """With z = 1 the interval of 5 of 10 is 0.349 to 0.651."""
    low, high = ends(interval, 5, 10, z=1.0)
    near(low, 0.3492, "z is the parameter, not always 1.96")
    near(high, 0.6508, "z is the parameter, not always 1.96")


@check("12.2", "feedback", "interval.py")
def it_stays_between_0_and_1(interval):
    """For all counts up to 40 it lies in 0 to 1 and holds the share."""
    for votes in range(1, 41):
        for good in range(votes + 1):
            low, high = ends(interval, good, votes)
            assert -1e-9 <= low <= high <= 1 + 1e-9, f"{good} of {votes}: {low} to {high}"
            share = good / votes
            assert low - 1e-9 <= share <= high + 1e-9, f"{good} of {votes}: {share} is outside"
            near(low, round(domain.wilson(good, votes)[0], 6), f"{good} of {votes}, low end")


class Delivery:
    """A delivery that writes down, in order, what was done."""

    body = b"the event"

    def __init__(self):
        self.done = []

    async def ack(self):
        self.done.append("ack")

    async def retry(self, delay=0.0):
        self.done.append(f"retry({delay})")

    async def drop(self):
        self.done.append("drop")


def consumed(consumer, outcome, delivery=None):
    """(what it returned, what was done in order) when `append` gives or raises `outcome`."""
    delivery = delivery or Delivery()

    def understand(body):
        assert body == Delivery.body, "give understand the delivery's body"
        if isinstance(outcome, NotUnderstood):
            raise outcome
        return "event"

    async def append(event):
        assert event == "event", "give append what understand returned"
        await asyncio.sleep(0)
        if isinstance(outcome, Exception):
            raise outcome
        delivery.done.append("commit")
        return outcome

    result = asyncio.run(consumer.consume(delivery, understand, append))
    return result, delivery.done


@check("12.3", "feedback", "consumer.py")
def a_new_event_is_stored_and_then_acknowledged(consumer):
    """A new event: commit, then acknowledge, and it is "stored"."""
    result, done = consumed(consumer, True)
    assert "commit" in done, "the event was never appended: is there an await before append?"
    assert "ack" in done, "it was not acknowledged: the broker would deliver it for ever"
    assert done == ["commit", "ack"], (
        f"got {done}: acknowledge once, after the commit; before it, a full disk loses the event"
    )
    assert result == "stored", f"got {result!r}: a new event is 'stored'"


@check("12.3", "feedback", "consumer.py")
def a_duplicate_is_acknowledged_too(consumer):
    """An event that is there already: acknowledge it, and it is a "duplicate"."""
    result, done = consumed(consumer, False)
    assert "ack" in done, f"got {done}: a duplicate that is not acknowledged comes for ever"
    assert done == ["commit", "ack"], f"got {done}: append it once, acknowledge it once"
    assert result == "duplicate", f"got {result!r}: append gave False, so it is a 'duplicate'"


@check("12.3", "feedback", "consumer.py")
def what_could_not_be_stored_comes_again(consumer):
    """Nothing was stored: ask for another delivery, do not acknowledge."""
    try:
        result, done = consumed(consumer, Unavailable("the disk is full"))
    except Unavailable as error:
        raise AssertionError("Unavailable went up: catch it and retry the delivery") from error
    assert "ack" not in done, f"got {done}: nothing was stored, and an ack would lose the event"
    assert "drop" not in done, (
        f"got {done}: the event is good, only the disk is not; do not drop it"
    )
    assert done == ["retry(5.0)"], f"got {done}: end it once, with retry(5.0)"
    assert result == "waiting", f"got {result!r}: it is 'waiting'"


@check("12.3", "feedback", "consumer.py")
def what_is_no_event_is_dropped(consumer):
    """What will never be understood must not come again."""
    try:
        result, done = consumed(consumer, NotUnderstood())
    except NotUnderstood as error:
        raise AssertionError("NotUnderstood went up: catch it and drop the delivery") from error
    assert "retry(5.0)" not in done, "it will never be understood: a retry goes round for ever"
    assert done == ["drop"], f"got {done}: end it once, with drop()"
    assert result == "refused", f"got {result!r}: it is 'refused'"


@check("12.3", "feedback", "consumer.py")
def other_errors_go_up(consumer):
    """An error that nobody planned for is not swallowed."""
    delivery = Delivery()
    try:
        result, _ = consumed(consumer, KeyError("a mistake in the code"), delivery)
    except KeyError:
        assert delivery.done == [], f"got {delivery.done}: leave the delivery; it comes again"
        return
    raise AssertionError(f"a KeyError became {result!r}: catch NotUnderstood and Unavailable only")


@check("12.3", "feedback", "consumer.py")
def three_deliveries_have_one_effect(consumer):
    """A full disk, then the event, then a copy: one row, and the broker has nothing left."""
    rows, left, results = [], ["event"], []
    disk = iter([Unavailable("full"), None, None])

    async def append(event):
        if error := next(disk):
            raise error
        new = event not in rows
        rows.extend([event] if new else [])
        return new

    class Message(Delivery):
        async def retry(self, delay=0.0):
            left.append("event")

    for copy in (False, True):
        left += ["event"] if copy else []
        for _ in range(5):
            if left:
                left.pop()
                results.append(asyncio.run(consumer.consume(Message(), lambda _: "event", append)))
    assert rows == ["event"], f"the store holds {rows}: one event, whatever was delivered"
    assert results == ["waiting", "stored", "duplicate"], f"got {results}"
