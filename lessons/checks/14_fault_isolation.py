"""The checks of lesson 14."""

from __future__ import annotations

import random

from services.chassis import Circuit
from services.chassis import may_call as reference_may_call
from services.chassis import record as reference_record
from workshop.exercises import check

FIRST = {"number": 1, "text": "A breaker opens after five failures. It closes after a probe."}
SECOND = {"number": 2, "text": "Version 3.5 waits a second. Then it tries once."}
THIRD = {"number": 3, "text": "A pool bounds the calls in flight."}


def extract(fallback, sources, **more):
    """What is returned: always text, never an error."""
    try:
        found = fallback.extractive_answer(sources, **more)
    except (IndexError, KeyError, TypeError) as error:
        raise AssertionError(
            f"{type(error).__name__} on {len(sources)} sources: a fallback that can fail is none. "
            "What if a source has no sentence?"
        ) from error
    assert isinstance(found, str), f"got {found!r}: return text, joined by blanks"
    return found


@check("14.1", "orchestrator", "fallback.py")
def two_sources_two_sentences(fallback):
    """The first sentence of each of the best two, with its citation."""
    found = extract(fallback, [FIRST, SECOND, THIRD])
    assert "[1]" in found, f"got {found!r}: each sentence needs its source's number, as [1]"
    assert "probe" not in found, f"got {found!r}: of each source the first sentence alone"
    assert "pool" not in found, f"got {found!r}: `limit` is 2, and a third source is in it"
    expected = "A breaker opens after five failures. [1] Version 3.5 waits a second. [2]"
    assert found == expected, f"got {found!r}, not {expected!r}"


@check("14.1", "orchestrator", "fallback.py")
def the_limit_is_an_argument(fallback):
    """`limit` bounds the answer, whatever it is."""
    for limit, numbers in ((1, [1]), (3, [1, 2, 3]), (0, [])):
        found = extract(fallback, [FIRST, SECOND, THIRD], limit=limit)
        cited = [number for number in (1, 2, 3) if f"[{number}]" in found]
        assert cited == numbers, f"limit={limit} cites {cited}, not {numbers}"


@check("14.1", "orchestrator", "fallback.py")
def the_citation_is_the_source_s_own(fallback):
    """The number is the source's, not its place in the list."""
    found = extract(fallback, [THIRD, FIRST])
    assert found.startswith("A pool bounds the calls in flight. [3]"), (
        f"got {found!r}: the source says its number, and a reader follows it to that source"
    )


@check("14.1", "orchestrator", "fallback.py")
def a_source_without_a_sentence_takes_no_place(fallback):
    """An empty source is passed over, and the next one is used."""
    found = extract(fallback, [{"number": 1, "text": " "}, SECOND, THIRD])
    assert "[1]" not in found, f"got {found!r}: source 1 is empty, so nothing can cite it"
    assert "[3]" in found, f"got {found!r}: of three sources two have a sentence; use both"


@check("14.1", "orchestrator", "fallback.py")
def nothing_gives_nothing(fallback):
    """Without sources the text is empty."""
    assert extract(fallback, []) == "", "there is nothing to quote, so return an empty text"


# -- 14.2 ---------------------------------------------------------------------------------


def opened(**more):
    """Open since second 100."""
    return Circuit(failures=5, opened_at=100.0, **more)


@check("14.2", "orchestrator", "admission.py")
def closed_lets_everything_through(admission):
    """Closed: every call is made, and asking changes nothing."""
    for failures in (0, 4):
        circuit = Circuit(failures=failures)
        found = [admission.may_call(circuit, 100.0) for _ in range(3)]
        assert found == [True] * 3, f"closed, {failures} failures: three ask, and get {found}"
        assert circuit == Circuit(failures=failures), (
            f"closed, and asking changed it to {circuit}: only `record` counts"
        )


@check("14.2", "orchestrator", "admission.py")
def open_lets_nothing_through(admission):
    """Open: no call before the pause is over."""
    for now in (100.0, 100.5, 100.875):
        found = admission.may_call(opened(), now)
        assert found is False, (
            f"opened at 100.0, asked at {now}: got {found!r}; it waits for `reset`, 1 s"
        )
    assert admission.may_call(Circuit(failures=1, opened_at=100.0), 100.5) is False, (
        "`opened_at` says that it is open, whatever is counted"
    )


@check("14.2", "orchestrator", "admission.py")
def after_the_pause_one_is_let_through(admission):
    """Half-open: the first who asks is let through, from `reset` on."""
    for now in (101.0, 101.5, 500.0):
        found = admission.may_call(opened(), now)
        assert found is True, f"opened at 100.0, reset 1 s, asked at {now}: got {found!r}"
    found = admission.may_call(opened(reset=0.25), 100.25)
    assert found is True, "opened at 100.0 with a reset of 0.25 s: use `circuit.reset`"


@check("14.2", "orchestrator", "admission.py")
def one_probe_at_a_time(admission):
    """Half-open: while the probe is under way, the others wait."""
    circuit = opened()
    found = [admission.may_call(circuit, now) for now in (101.0, 101.0, 101.5, 200.0)]
    assert found == [True, False, False, False], (
        f"four ask, the probe has not ended: got {found}; note in `circuit.probing` that one is "
        "under way"
    )


@check("14.2", "orchestrator", "admission.py")
def a_probe_closes_nothing_yet(admission):
    """The probe has only begun: the circuit stays as it is."""
    circuit = opened()
    admission.may_call(circuit, 101.0)
    assert circuit.opened_at == 100.0, (
        f"`opened_at` became {circuit.opened_at}: whether it closes is known when the probe ends"
    )
    assert circuit.failures == 5, "the failures are counted by `record` alone"


@check("14.2", "orchestrator", "admission.py")
def a_second_probe_after_the_first(admission):
    """When a probe has ended without a verdict, the next one is let through."""
    circuit = opened()
    admission.may_call(circuit, 101.0)
    circuit.probing = False
    assert admission.may_call(circuit, 101.0) is True, (
        "no probe is under way any more: the next who asks is the probe"
    )


# -- 14.3 ---------------------------------------------------------------------------------


def after(outcome, results, circuit=None):
    """The circuit after calls that ended so, a second apart from second 0."""
    circuit = circuit or Circuit()
    for second, result in enumerate(results):
        outcome.record(circuit, result, float(second))
    return circuit


@check("14.3", "orchestrator", "outcome.py")
def the_fifth_failure_opens(outcome):
    """Four failures leave it closed, the fifth opens it."""
    circuit = after(outcome, [False] * 4)
    assert circuit.opened_at is None, "four failures in a row, and it is open: the threshold is 5"
    circuit = after(outcome, [False] * 5)
    assert circuit.opened_at == 4.0, (
        f"five failures at seconds 0 to 4: opened_at is {circuit.opened_at}, not 4.0"
    )
    circuit = after(outcome, [False] * 2, Circuit(threshold=2))
    assert circuit.opened_at == 1.0, "with a threshold of 2, the second failure opens it"


@check("14.3", "orchestrator", "outcome.py")
def only_failures_in_a_row_count(outcome):
    """A success in between begins the count anew."""
    circuit = after(outcome, [False] * 4 + [True] + [False] * 4)
    assert circuit.opened_at is None, (
        "four failures, a success, four failures: it is open. A success sets the count to zero"
    )


@check("14.3", "orchestrator", "outcome.py")
def a_good_probe_closes(outcome):
    """The probe succeeds: closed, nothing counted, no probe under way."""
    circuit = after(outcome, [True], opened(probing=True))
    assert circuit.opened_at is None, "the probe was answered, and the circuit is still open"
    assert circuit.failures == 0, f"{circuit.failures} failures are left: one more would open it"
    assert circuit.probing is False, "the probe has ended: `probing` must say so"


@check("14.3", "orchestrator", "outcome.py")
def a_bad_probe_opens_again(outcome):
    """The probe fails: open for another whole pause, from now on."""
    circuit = opened(probing=True)
    outcome.record(circuit, False, 102.0)
    assert circuit.opened_at == 102.0, (
        f"opened_at is {circuit.opened_at}: a probe that fails begins the pause anew, at 102.0"
    )
    assert circuit.probing is False, "the probe has ended: without that, nobody may ever probe"


@check("14.3", "orchestrator", "outcome.py")
def a_call_without_a_verdict_counts_as_nothing(outcome):
    """None: neither a success nor a failure."""
    circuit = after(outcome, [False] * 4 + [None])
    assert circuit.opened_at is None, "a caller who left (None) was counted as a failure"
    circuit = after(outcome, [False] * 4 + [None] + [False])
    assert circuit.opened_at == 5.0, (
        "four failures, None, a failure: it is closed. A caller who left set the count to zero"
    )
    circuit = after(outcome, [None], opened(probing=True))
    assert circuit.opened_at == 100.0, "the probe's caller left, so no answer is known: it stays"
    assert circuit.probing is False, (
        "the probe's caller left, and `probing` stays: no call would ever be let through again"
    )


@check("14.3", "orchestrator", "outcome.py")
def it_agrees_with_the_reference(outcome):
    """On a thousand drawn calls it agrees with the reference."""
    draw = random.Random(14)
    for _ in range(20):
        mine, other, now = Circuit(), Circuit(), 0.0
        for _ in range(50):
            now += draw.choice([0.0, 0.25, 1.0])
            if not reference_may_call(other, now):
                continue
            reference_may_call(mine, now)
            result = draw.choice([True, False, False, False, None])
            outcome.record(mine, result, now)
            reference_record(other, result, now)
            same = (mine.opened_at, mine.probing) == (other.opened_at, other.probing)
            assert same, f"after {result} at {now} s: {mine}, the reference has {other}"
