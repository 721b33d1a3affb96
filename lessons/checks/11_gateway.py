"""The checks of lesson 11."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping

from services.chassis import CallFailed
from services.gateway.domain import Bucket
from services.gateway.domain import take_token as reference
from services.orchestrator.stages import Stage
from workshop.exercises import check


def takes(bucket_file, bucket, times, *, rate=0.5, capacity=3.0):
    """What is returned at each of the times."""
    found = [bucket_file.take_token(bucket, now, rate=rate, capacity=capacity) for now in times]
    for value in found:
        assert type(value) is int, (
            f"returned {value!r}: give 0 for a token, else whole seconds as an int"
        )
    return found


@check("11.1", "gateway", "bucket.py")
def a_full_bucket_gives_its_capacity(bucket):
    """Three tokens, four requests at once: three pass."""
    found = takes(bucket, Bucket(3.0, 100.0), [100.0] * 4)
    assert found[:3] == [0, 0, 0], f"got {found}: a full bucket of 3 gives 3 at once"
    assert found[3] > 0, "the fourth finds an empty bucket: return the seconds to wait, never 0"


@check("11.1", "gateway", "bucket.py")
def a_token_is_taken_once(bucket):
    """A request takes one token, a refused one none."""
    state = Bucket(1.5, 0.0)
    takes(bucket, state, [0.0])
    assert state.tokens == 0.5, f"1.5 tokens less one is 0.5, not {state.tokens}"
    takes(bucket, state, [0.0, 0.0, 0.0])
    assert state.tokens == 0.5, f"a refused request takes nothing; {state.tokens} are left of 0.5"


@check("11.1", "gateway", "bucket.py")
def it_refills_by_the_time_that_passed(bucket):
    """At half a token a second, one token is there after two seconds."""
    state = Bucket(0.0, 100.0)
    found = takes(bucket, state, [101.0, 102.0, 103.0, 104.0])
    passed = [second for second, wait in enumerate(found, start=1) if wait == 0]
    assert 1 not in passed, "half a token is no token: after 1 s the request is refused"
    assert passed == [2, 4], (
        f"passed at seconds {passed}, not [2, 4]: add rate times the time since `bucket.at`, parts "
        "of a token too, and move `bucket.at`"
    )


@check("11.1", "gateway", "bucket.py")
def it_holds_no_more_than_its_capacity(bucket):
    """After a long silence the bucket is full, not fuller."""
    state = Bucket(0.0, 0.0)
    found = takes(bucket, state, [10_000.0] * 5)
    passed = found.count(0)
    assert passed == 3, f"{passed} of 5 passed after a long silence: the bucket holds 3"


@check("11.1", "gateway", "bucket.py")
def the_wait_is_long_enough_and_no_longer(bucket):
    """Who waits as long as told gets in; a second less is too little."""
    for tokens, rate, wait in ((0.0, 0.5, 2), (0.25, 0.5, 2), (0.0, 0.125, 8), (0.75, 4.0, 1)):
        found = takes(bucket, Bucket(tokens, 0.0), [0.0], rate=rate)[0]
        assert found == wait, (
            f"{tokens} tokens, {rate} a second: told {found} s, not {wait}: "
            "what is missing to one token, divided by the rate, rounded up"
        )
        again = takes(bucket, Bucket(tokens, 0.0), [0.0, float(wait)], rate=rate)
        assert again[1] == 0, f"came back after {wait} s as told, and was refused again"


@check("11.1", "gateway", "bucket.py")
def there_is_no_border_of_a_window(bucket):
    """A hundred before a full minute leave nothing for the second after it."""
    state = Bucket(100.0, 59.0)
    times = [59.0 + n / 128 for n in range(128)] + [60.0 + n / 128 for n in range(128)]
    passed = takes(bucket, state, times, rate=1.0, capacity=100.0).count(0)
    assert passed == 101, f"{passed} of 256 passed in two seconds, not 100 and what flowed in"


@check("11.1", "gateway", "bucket.py")
def no_second_counts_twice(bucket):
    """The time moves on with every request, and never back."""
    state = Bucket(0.0, 0.0)
    found = takes(bucket, state, [1.0, 1.0, 1.0])
    assert 0 not in found, "three requests at second 1 count the same second three times: move `at`"
    state = Bucket(1.0, 10.0)
    found = takes(bucket, state, [4.0, 10.0])
    assert found[0] == 0, "a clock that lags takes no tokens away: the token at hand is given"
    assert found[1] > 0, "after a clock that lagged, seconds 4 to 10 were counted: `at` went back"


@check("11.1", "gateway", "bucket.py")
def now_is_the_argument(bucket):
    """The time is the `now` that is given, whatever the clock says."""
    found = takes(bucket, Bucket(0.0, 1e9), [1e9, 1e9 + 2])
    assert found == [2, 0], f"got {found}, not [2, 0]: use `now`, and read no clock"


@check("11.1", "gateway", "bucket.py")
def the_bucket_agrees_with_the_reference(bucket):
    """On a thousand drawn requests it agrees with the reference."""
    draw = random.Random(11)
    for _ in range(20):
        rate, capacity = draw.choice([0.25, 0.5, 2.0]), float(draw.randint(1, 8))
        mine, other, now = Bucket(capacity, 0.0), Bucket(capacity, 0.0), 0.0
        for _ in range(50):
            now += draw.choice([0.0, 0.125, 0.5, 1.0, 6.0])
            found = takes(bucket, mine, [now], rate=rate, capacity=capacity)[0]
            expected = reference(other, now, rate=rate, capacity=capacity)
            assert found == expected, f"at {now} s: {found}, the reference says {expected}"


# -- 11.2 ---------------------------------------------------------------------------------


def sha(key):
    return hashlib.sha256(key.encode()).hexdigest()


class Watched(str):
    """A hash that knows whether it was compared by `==`."""

    plain: list[str] = []  # noqa: RUF012 - one list for all is what is wanted

    def __eq__(self, other):
        Watched.plain.append("==")
        return str.__eq__(self, other)

    __hash__ = str.__hash__


class Seen(Mapping):
    """Names and hashes that count how many of them were looked at."""

    def __init__(self, *keys):
        self.hashes = {f"user{n}": Watched(sha(key)) for n, key in enumerate(keys)}
        self.looked = set()

    def __getitem__(self, name):
        self.looked.add(name)
        return self.hashes[name]

    def __iter__(self):
        return iter(self.hashes)

    def __len__(self):
        return len(self.hashes)


@check("11.2", "gateway", "keys.py")
def a_key_has_its_holder(keys):
    """Each key leads to its name."""
    hashes = {"ana": sha("key-a"), "bob": sha("key-b"), "eva": sha("key-e")}
    for key, name in (("key-a", "ana"), ("key-b", "bob"), ("key-e", "eva")):
        found = keys.holder_of(key, hashes)
        assert found == name, f"{name}'s key gave {found!r}: hash it, then compare; return the name"


@check("11.2", "gateway", "keys.py")
def an_unknown_key_has_none(keys):
    """Anything else leads to None: an empty key, a part of one, a hash."""
    hashes = {"ana": sha("key-a"), "bob": sha("key-b")}
    for key, what in (
        ("key-x", "an unknown key"),
        ("", "an empty key"),
        ("key-", "the beginning of a key"),
        (sha("key-a"), "the hash itself, which anybody may have read,"),
    ):
        found = keys.holder_of(key, hashes)
        assert found is None, f"{what} gave {found!r}, not None"
    assert keys.holder_of("key-a", {}) is None, "without entries nobody holds a key"


@check("11.2", "gateway", "keys.py")
def any_character_may_come(keys):
    """A key with any character is refused, not an error."""
    try:
        found = keys.holder_of("clé-ß-鍵", {"ana": sha("key-a")})
    except (UnicodeError, TypeError) as error:
        raise AssertionError(
            f"{type(error).__name__} on a key that is not ASCII: a stranger could make you fail. "
            "Encode it as UTF-8, and compare the hashes"
        ) from error
    assert found is None, f"an unknown key gave {found!r}"


@check("11.2", "gateway", "keys.py")
def every_entry_is_looked_at(keys):
    """The first entry matches, and the others are compared all the same."""
    for key in ("one", "three", "none of them"):
        hashes = Seen("one", "two", "three")
        keys.holder_of(key, hashes)
        assert len(hashes.looked) == 3, (
            f"{len(hashes.looked)} of 3 entries were looked at: the time tells which one matched. "
            "Remember the name and go on"
        )


@check("11.2", "gateway", "keys.py")
def no_comparison_stops_early(keys):
    """Hashes are compared by hmac.compare_digest alone."""
    Watched.plain.clear()
    found = keys.holder_of("two", Seen("one", "two", "three"))
    assert found == "user1", f"got {found!r} for the second key"
    assert not Watched.plain, (
        "a hash was compared by == (or by `in`, or looked up), which stops at the first "
        "character that differs: use hmac.compare_digest"
    )


# -- 11.3 ---------------------------------------------------------------------------------

STAGE = Stage("reranking", cap=0.4, share=0.1)
LATER = [Stage("context", 0.5, 0.125), Stage("generation", 2.0, 0.75)]


def given(stage_file, left, later=LATER, stage=STAGE):
    """(the seconds that `work` got, or None; what came back; what was noted)."""
    lost, got = {}, []

    async def work(seconds):
        got.append(seconds)
        return {"results": []}

    found = asyncio.run(stage_file.run_stage(work, stage, later, left, lost))
    assert len(got) <= 1, f"`work` was called {len(got)} times: once is enough"
    return (got[0] if got else None), found, lost


def fails(stage_file, error):
    """(what came back, what was noted) when `work` raises `error`."""
    lost = {}

    async def work(seconds):
        raise error

    return asyncio.run(stage_file.run_stage(work, STAGE, [], 1.0, lost)), lost


@check("11.3", "orchestrator", "stage.py")
def with_time_enough_it_gets_its_cap(stage):
    """With plenty of time, the stage gets its cap and its answer comes back."""
    seconds, found, lost = given(stage, 60.0)
    assert seconds == 0.4, f"work got {seconds} s, not its cap of 0.4 s"
    assert found == {"results": []}, f"got {found!r}: return what `await work(seconds)` gives"
    assert lost == {}, f"nothing was lost, but {lost} was noted"


@check("11.3", "orchestrator", "stage.py")
def what_is_left_bounds_it(stage):
    """The time of the whole counts, not each stage's own."""
    seconds, _, _ = given(stage, 0.25, later=[])
    assert seconds is not None, "0.25 s are left and 0.05 s are the least: it can begin"
    assert seconds == 0.25, f"0.25 s are left in all, and work got {seconds} s"


@check("11.3", "orchestrator", "stage.py")
def the_later_ones_keep_their_share(stage):
    """1.125 s left, shares of 0.125 s and 0.75 s after it: 0.25 s."""
    seconds, _, _ = given(stage, 1.125)
    assert seconds is not None, "1.125 - 0.875 = 0.25 s is more than its least: it begins"
    assert abs(seconds - 0.25) < 1e-9, (
        f"work got {seconds} s, not 0.25 s: what is left, minus the share of every later stage"
    )


@check("11.3", "orchestrator", "stage.py")
def what_cannot_end_is_not_begun(stage):
    """With less than its least the stage is not begun, and noted."""
    for left in (0.9, 0.875, 0.5, 0.0, -0.1):
        seconds, found, lost = given(stage, left)
        assert seconds is None, f"{left - 0.875:.3f} s for a stage that needs 0.05 s: begun anyway"
        assert found is None, f"it was not begun, and {found!r} came back in place of None"
        assert list(lost) == ["reranking"], f"lost is {lost}: note the stage's name and why"


@check("11.3", "orchestrator", "stage.py")
def its_least_is_enough(stage):
    """With exactly its least, or a little more, it begins."""
    half = Stage("reranking", cap=0.5, share=0.25)
    for left in (0.125, 0.1875):
        seconds, _, lost = given(stage, left, later=[], stage=half)
        assert seconds == left, (
            f"{left} s are left and 0.125 s are the least, but it was not begun ({lost}): the share "
            "is what others leave, the least is what it needs"
        )


@check("11.3", "orchestrator", "stage.py")
def a_failed_call_is_noted(stage):
    """A call that fails gives None, with the reason in `lost`."""
    try:
        found, lost = fails(stage, CallFailed("reranking", "no answer within 400 ms"))
    except CallFailed as error:
        raise AssertionError(
            "the CallFailed was raised: the whole answer is lost with it"
        ) from error
    assert found is None, f"got {found!r}, not None"
    assert lost == {"reranking": "no answer within 400 ms"}, f"lost is {lost}: note error.reason"


@check("11.3", "orchestrator", "stage.py")
def the_cancellation_passes(stage):
    """When the user leaves, the work ends: the cancellation goes on."""

    async def leave():
        begun = asyncio.Event()

        async def work(seconds):
            begun.set()
            await asyncio.sleep(5)

        run = asyncio.create_task(stage.run_stage(work, STAGE, [], 1.0, {}))
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait({run, waiting}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if run.done():
            run.result()
        run.cancel()
        await asyncio.wait({run}, timeout=1)
        return run.done() and run.cancelled()

    assert asyncio.run(leave()), (
        "the task was cancelled and went on: CancelledError must not be caught (except CallFailed)"
    )


@check("11.3", "orchestrator", "stage.py")
def a_bug_is_seen(stage):
    """A KeyError is no loss of a stage, and is raised."""
    try:
        found, lost = fails(stage, KeyError("results"))
    except KeyError:
        return
    raise AssertionError(f"the KeyError was hidden ({found!r}, {lost}): catch CallFailed alone")
