"""The checks of lesson 15."""

from __future__ import annotations

import random
from collections import Counter

from workshop.exercises import check
from workshop.learn import Call


def rows(waits, *, sent_late=0.0, failed=0):
    """Calls that were due each 10 ms and waited so many milliseconds; the last ones failed."""
    return [
        Call(n / 100, n / 100 + sent_late, n / 100 + wait / 1000, n < len(waits) - failed)
        for n, wait in enumerate(waits)
    ]


def reported(module, calls, seconds):
    found = module.report(calls, seconds)
    assert isinstance(found, dict), f"return a dictionary, not {type(found).__name__}"
    wanted = {"per_second", "failed", "p50", "p95", "p99"}
    assert set(found) == wanted, f"the keys are {sorted(wanted)}, not {sorted(found)}"
    return found


@check("15.1", "scale", "report.py")
def nearest_rank(module):
    """Forty waiting times of 1 to 40 ms: p50 is 20, p95 is 38, p99 is 40."""
    waits = list(range(1, 41))
    random.Random(3).shuffle(waits)
    found = reported(module, rows(waits), 1)
    right = {"p50": 20, "p95": 38, "p99": 40}
    got = {name: round(found[name], 6) for name in right}
    assert got != {"p50": 0.02, "p95": 0.038, "p99": 0.04}, "these are seconds: multiply by 1000"
    assert got == right, (
        f"got {got}: sort the waiting times and take the nearest rank, ceil(40 * 95 / 100) = 38, "
        "which has the index 37"
    )


@check("15.1", "scale", "report.py")
def rounded_up_ranks(module):
    """Of seven values, p50 is the 4th smallest; of one, every percentile is that one."""
    found = reported(module, rows([1, 2, 3, 4, 5, 6, 7]), 1)
    assert round(found["p50"], 6) == 4, f"p50 of 1 to 7 is {found['p50']}, not 4: round 3.5 up"
    one = reported(module, rows([9]), 1)
    assert round(one["p50"], 6) == round(one["p99"], 6) == 9, f"one call of 9 ms gave {one}"


@check("15.1", "scale", "report.py")
def from_the_time_it_was_due(module):
    """A call that was sent 500 ms late has kept its user waiting for these 500 ms too."""
    found = reported(module, rows([510] * 10, sent_late=0.5), 1)
    assert round(found["p50"], 6) != 10, "you count from `sent`; its user waited since it was `due`"
    assert round(found["p50"], 6) == 510, f"due, sent 500 ms later, done after 510: {found['p50']}"


@check("15.1", "scale", "report.py")
def a_refusal_is_no_answer(module):
    """Eight answers and two quick refusals in 4 s: 2 a second, a fifth failed."""
    found = reported(module, rows([100] * 8 + [1] * 2, failed=2), 4)
    assert found["per_second"] != 2.5, "the two that failed were answered nothing: 8 / 4 = 2"
    assert found["per_second"] == 2, f"8 answers in 4 s are 2 a second, not {found['per_second']}"
    share = round(found["failed"], 6)
    assert share == 0.2, f"2 of 10 calls failed, a share of 0.2, not {share}"
    least = reported(module, rows([100] * 2 + [1] * 8, failed=8), 4)["p50"]
    assert round(least, 6) == 100, (
        f"p50 is {least:.0f} ms: quick refusals make a bad service look quick, leave them out"
    )


def picks(module, in_flight, times=3000, seed=1):
    draw = random.Random(seed)
    found = Counter(module.pick(list(in_flight), draw) for _ in range(times))
    assert set(found) <= set(range(len(in_flight))), (
        f"with {len(in_flight)} copies you returned {sorted(found)[:3]}: return a place from 0 on"
    )
    return found


@check("15.2", "scale", "pick.py")
def one_copy(module):
    """One copy is taken, and so is the only idle one of two."""
    assert module.pick([7], random.Random(1)) == 0, "with one copy, return 0"
    assert picks(module, [6, 0], 200) == {1: 200}, (
        "of two copies both are drawn, as they must be different: the less busy one gets every call"
    )


@check("15.2", "scale", "pick.py")
def the_busiest_gets_nothing(module):
    """Of three copies with 9, 1 and 5 open calls, the first gets none."""
    found = picks(module, [9, 1, 5])
    assert found[0] == 0, (
        f"the busiest got {found[0]} of 3000 calls. Draw two different copies: it loses to any other"
    )
    assert found[1] > found[2], f"the idlest got {found[1]} calls and the middle one {found[2]}"


@check("15.2", "scale", "pick.py")
def only_two_are_looked_at(module):
    """The middle one of three is taken when it is drawn with the busiest: one time in three."""
    share = picks(module, [9, 1, 5])[2] / 3000
    assert 0.28 < share < 0.39, (
        f"its share is {share:.2f}, not about 0.33. Look at two that were drawn, not at all: "
        "balancers that look at all send everything to the same idle copy"
    )


@check("15.2", "scale", "pick.py")
def idle_copies_share(module):
    """Four idle copies get a quarter each."""
    found = picks(module, [0, 0, 0, 0])
    least = min(found[place] for place in range(4))
    assert least > 600, (
        f"of 3000 calls one copy got {least}, not about 750: when both are equally busy, take the "
        "one that was drawn first"
    )


@check("15.2", "scale", "pick.py")
def chance_comes_from_draw(module):
    """Equal seeds give equal picks: chance comes from `draw`, and from nowhere else."""
    states = [random.getstate()]
    first, second = (
        [module.pick([n % 3, 1, n % 2, 0, 2], draw) for n in range(50)]
        for draw in (random.Random(5), random.Random(5))
    )
    states.append(random.getstate())
    assert first == second, "the same seed gave other picks: use `draw`, not the module `random`"
    assert states[0] == states[1], "you drew from the module `random`: use `draw`"
    assert len(set(first)) > 1, "every pick was the same copy"


@check("15.3", "scale", "machines.py")
def by_hand(module):
    """320 users, 30 s and 2 s, 3,000 ms, 16 cores: 4 machines and one to spare."""
    found = module.machines(320, 30, 2, 3000, 16)
    assert found != 4, "one may be gone: add `spare`"
    assert found != 3, "3 machines and one to spare carry 28.8 cores of work, not 30"
    assert found == 5, (
        f"got {found}. 320 / 32 = 10 questions a second, 30 cores of work, 30 / (16 * 0.6) = 3.1"
    )
    assert isinstance(found, int), "return a whole number"


@check("15.3", "scale", "machines.py")
def thinking_and_waiting(module):
    """A user asks once in the time of thinking and of waiting together."""
    found = module.machines(1000, 10, 10, 1000, 10, busy=1, spare=0)
    assert found != 10, "1,000 users every 10 s are too many: they wait for 10 s as well"
    assert found == 5, f"1000 / 20 s, 50 cores of work, 10 in a machine: 5 machines, not {found}"


@check("15.3", "scale", "machines.py")
def round_once(module):
    """What is rounded in between is bought twice."""
    found = module.machines(31, 29, 1, 900, 1, busy=1, spare=0)
    assert found == 1, f"31 / 30 s × 0.9 s = 0.93 cores: 1 machine of one core, not {found}"


@check("15.3", "scale", "machines.py")
def few_and_spare(module):
    """Ten users fit on one machine; two may be asked to be spare; busy is a share of the cores."""
    assert module.machines(10, 30, 1, 100, 16) == 2, "one that works and one to spare"
    found = module.machines(10, 30, 1, 100, 16, spare=2)
    assert found == 3, f"`spare=2` gave {found}, not 3"
    half = module.machines(3000, 29, 1, 1000, 10, busy=0.5, spare=0)
    assert half == 20, f"100 cores of work at busy=0.5 need 200 cores, 20 machines, not {half}"
