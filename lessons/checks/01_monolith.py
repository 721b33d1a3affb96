"""The checks of lesson 01."""

from __future__ import annotations

import contextlib
import math

from workshop.exercises import check


class Clock:
    """Seconds that pass only when a stage says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def stage(self, seconds, result=None, error=None):
        def run(state):
            self.now += seconds
            if error is not None:
                raise error
            return result(state) if callable(result) else result

        return run


def rows_of(timings):
    return [
        (row.get("stage"), round(row.get("start_ms", math.nan), 3), round(row["ms"], 3))
        for row in timings
    ]


@check("01.1", "monolith", "timer.py")
def results_go_into_the_state(timer):
    """Each stage finds the results of those before it in the state."""
    clock = Clock()
    stages = {
        "one": clock.stage(0.1, lambda state: state["question"] + "!"),
        "two": clock.stage(0.1, lambda state: state["one"] * 2),
    }
    state = timer.run_stages(stages, {"question": "why"}, [], clock)
    assert state is not None, "the function returns nothing: return the state at the end"
    assert state.get("one") == "why!", "the result of a stage belongs into state[name]"
    assert state.get("two") == "why!why!", "the second stage must see what the first one gave"
    assert state.get("question") == "why", "keep what was in the state before"


@check("01.1", "monolith", "timer.py")
def a_row_for_each_stage(timer):
    """Three stages of 50, 200 and 10 ms give three rows, in order."""
    clock, timings = Clock(), []
    stages = {"a": clock.stage(0.05), "b": clock.stage(0.2), "c": clock.stage(0.01)}
    timer.run_stages(stages, {}, timings, clock)
    assert [row.get("stage") for row in timings] == ["a", "b", "c"], (
        f"got {len(timings)} rows: append one row for each stage, with its name in `stage`"
    )
    assert all({"start_ms", "ms", "status"} <= row.keys() for row in timings), (
        "a row has stage, start_ms, ms and status"
    )
    found = [round(row["ms"], 3) for row in timings]
    assert found != [0.05, 0.2, 0.01], "these are seconds: multiply by 1000"
    assert found == [50, 200, 10], (
        f"got {found}: `ms` is the time of this stage alone, from its own start to its own end"
    )
    assert [row["status"] for row in timings] == ["ok"] * 3, "a stage that returned is `ok`"


@check("01.1", "monolith", "timer.py")
def starts_count_from_the_first_stage(timer):
    """start_ms is 0 for the first stage, and then counts on."""
    clock, timings = Clock(), []
    timer.run_stages({"a": clock.stage(0.05), "b": clock.stage(0.2)}, {}, timings, clock)
    assert rows_of(timings) == [("a", 0, 50), ("b", 50, 200)], (
        f"got {rows_of(timings)} for (stage, start_ms, ms): subtract the time at which the first "
        "stage started, and no other"
    )


@check("01.1", "monolith", "timer.py")
def an_error_goes_on_to_the_caller(timer):
    """A stage that raises ends the run, and its exception is seen."""
    clock, reached = Clock(), []
    stages = {
        "a": clock.stage(0.05),
        "b": clock.stage(0.2, error=LookupError("no passage")),
        "c": clock.stage(0.1, lambda _: reached.append("c")),
    }
    raised = None
    try:
        timer.run_stages(stages, {}, [], clock)
    except NotImplementedError:
        raise
    except Exception as error:  # noqa: BLE001
        raised = error
    assert raised is not None, "the exception was swallowed: a timer must not hide an error"
    assert isinstance(raised, LookupError), (
        f"the stage raised LookupError, the caller got {raised!r}"
    )
    assert reached == [], "no stage runs after one that failed"


@check("01.1", "monolith", "timer.py")
def the_failed_stage_has_its_row(timer):
    """The stage that raised is in the rows, as failed, with its time."""
    clock, timings = Clock(), []
    stages = {"a": clock.stage(0.05), "b": clock.stage(0.2, error=LookupError("no passage"))}
    with contextlib.suppress(LookupError):
        timer.run_stages(stages, {}, timings, clock)
    assert [row["stage"] for row in timings] == ["a", "b"], (
        "the stage that failed has no row: write it in `finally`"
    )
    assert [row["status"] for row in timings] == ["ok", "failed"], (
        f"got {[row['status'] for row in timings]}: a stage that raised is `failed`"
    )
    assert rows_of(timings)[1] == ("b", 50, 200), "it took 200 ms until it failed"


@check("01.2", "monolith", "metric.py")
def by_hand(metric):
    """A, X, B with A and B relevant is 1.5 / 1.631."""
    found = metric.ndcg(["A", "X", "B"], {"A", "B"})
    assert found is not None, "the function returns nothing: is there a return?"
    best = 1 + 1 / math.log2(3)
    assert not math.isclose(found, 1.5), "that is the gain: divide it by the best possible sum"
    assert not math.isclose(found, 1.0), (
        "got 1.0: the passages are all there, but B is at rank 3 and not at 2. The best sum is that "
        "of B at rank 2"
    )
    assert math.isclose(found, 1.5 / best), f"got {found:.4f}: it is 1.5 / {best:.3f}"


@check("01.2", "monolith", "metric.py")
def the_place_counts(metric):
    """One relevant passage: 1 at rank 1, 0.631 at rank 2, 0.5 at rank 3."""
    found = [round(metric.ndcg(ranking, {"A"}), 3) for ranking in ("AXY", "XAY", "XYA")]
    assert found != [0.631, 0.5, 0.431], "ranks start at 1: the first place is worth 1 / log2(2)"
    assert found != [1.0, 1.0, 1.0], "the later a passage comes, the less it is worth"
    assert found == [1.0, 0.631, 0.5], f"got {found}: a passage at rank r gives 1 / log2(r + 1)"


@check("01.2", "monolith", "metric.py")
def what_was_not_found_is_missing(metric):
    """Two relevant passages, one found at rank 1: the other one is missing from the sum."""
    found = metric.ndcg(["A", "X"], {"A", "B"})
    assert not math.isclose(found, 1.0), (
        "got 1.0 although B was not found: the best sum depends on what is relevant, not on what "
        "was found"
    )
    assert not math.isclose(found, 0.5), "divide by the best possible sum, not by their number"
    assert math.isclose(found, 1 / (1 + 1 / math.log2(3))), f"got {found:.4f}: it is 1 / 1.631"


@check("01.2", "monolith", "metric.py")
def only_the_first_k_count(metric):
    """Rank 3 is not seen at k = 2, and three relevant passages cannot fit into two ranks."""
    assert metric.ndcg(["X", "Y", "A"], {"A"}, k=2) == 0, "at k = 2, rank 3 does not count"
    assert math.isclose(metric.ndcg(["A", "B", "C"], {"A", "B", "C"}, k=2), 1.0), (
        "the first two ranks are both relevant, so it is 1.0: the best sum has at most k terms"
    )
    ranking = [f"X{n}" for n in range(10)] + ["A"]
    assert metric.ndcg(ranking, {"A"}) == 0, "k is 10 unless told otherwise: rank 11 is not seen"


@check("01.2", "monolith", "metric.py")
def nothing_relevant(metric):
    """Nothing relevant, or nothing found, is 0.0 and no error."""
    assert metric.ndcg(["A"], set()) == 0, "with nothing relevant, return 0.0"
    assert metric.ndcg([], {"A"}) == 0, "with nothing found, return 0.0"


@check("01.3", "monolith", "copies.py")
def by_the_law(copies):
    """40 questions a second at 30 ms need two copies; at 50 ms, three."""
    found = copies.copies({"reranking": 30.0, "search": 50.0}, 40)
    assert found is not None, "the function returns nothing: is there a return?"
    assert set(found) == {"reranking", "search"}, "return a number for each part"
    assert found["reranking"] < 100, "milliseconds: divide by 1000 to get seconds"
    assert found == {"reranking": 2, "search": 3}, (
        f"got {found}: 40 × 0.030 = 1.2 and 40 × 0.050 = 2.0 seconds of work in each second. By 0.7 "
        "that is 1.71 and 2.86 copies, rounded up"
    )


@check("01.3", "monolith", "copies.py")
def each_part_by_itself(copies):
    """Parts have numbers of their own: 100 ms need 15 copies at 100 a second, 3 ms need one."""
    found = copies.copies({"slow": 100.0, "quick": 3.0}, 100)
    assert found["slow"] != found["quick"], (
        "each part has its own load: that is what can be copied apart, and the script cannot"
    )
    assert found == {"slow": 15, "quick": 1}, f"got {found}: 10 / 0.7 = 14.3, and 0.3 / 0.7 = 0.43"


@check("01.3", "monolith", "copies.py")
def at_least_one(copies):
    """Without any load, one copy is there."""
    found = copies.copies({"reranking": 30.0}, 0)
    assert found == {"reranking": 1}, f"got {found}: a part without a copy answers nobody"


@check("01.3", "monolith", "copies.py")
def as_busy_as_you_allow(copies):
    """`most` is used: 2.5 seconds of work need 3 copies at 90 %, and 5 at 50 %."""
    found = [copies.copies({"a": 25.0}, 100, most=share)["a"] for share in (0.9, 0.5)]
    assert found == [3, 5], f"got {found} for most = 0.9 and 0.5: divide by `most`"


@check("01.3", "monolith", "copies.py")
def whole_copies(copies):
    """The numbers are whole."""
    found = copies.copies({"a": 25.0}, 100)["a"]
    assert isinstance(found, int), f"got {found!r}: nobody can start a part of a process"
