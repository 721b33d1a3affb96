import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.feedback.domain import (
    Act,
    Answer,
    NotUnderstood,
    Unavailable,
    Vote,
    by_day,
    by_stage,
    consume,
    count_votes,
    intent_drift,
    jensen_shannon,
    percentile,
    to_csv,
    wilson,
    worst_questions,
)


def answer(request_id="r", question="q?", day="2026-01-01", **more):
    known = {
        "intent": "question",
        "kind": "generated",
        "degraded": 0,
        "refused": False,
        "groundedness": 1.0,
        "total_ms": 100.0,
    }
    return Answer(day=day, request_id=request_id, question=question, **(known | more))


def vote(kind, value=None, request_id="r", question=None, day="2026-01-01"):
    return Vote(day, request_id, kind, value, question)


def test_percentiles_are_values_that_occurred():
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) is None


def test_divergence_of_known_distributions():
    assert jensen_shannon({"a": 3}, {"a": 9}) == 0.0
    assert jensen_shannon({"a": 1}, {"b": 1}) == 1.0
    # (0.5 log2(0.5/0.75) + 0.5 log2(0.5/0.25)) / 2 + log2(1/0.75) / 2
    assert jensen_shannon({"a": 1, "b": 1}, {"a": 1}) == pytest.approx(0.3112781, abs=1e-6)
    assert jensen_shannon({}, {"a": 1}) is None


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50), min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50), min_size=1),
)
def test_divergence_is_symmetric_and_bounded(one, other):
    value = jensen_shannon(one, other)
    assert 0.0 <= value <= 1.0
    assert value == pytest.approx(jensen_shannon(other, one))


def test_days_with_votes_only_have_a_row_too():
    rows = by_day([answer()], [vote("stars", "4", day="2026-01-02")])
    assert [row["day"] for row in rows] == ["2026-01-01", "2026-01-02"]
    assert rows[1]["answers"] == 0
    assert rows[1]["stars"] == 4.0
    assert rows[1]["p50_ms"] is None


def test_skipped_stages_do_not_lower_the_times():
    rows = by_stage([("rerank", "ok", 40.0), ("rerank", "skipped", 0.0), ("search", "ok", 5.0)])
    assert [row["stage"] for row in rows] == ["rerank", "search"]
    assert rows[0]["p50_ms"] == 40.0
    assert (rows[0]["runs"], rows[0]["skipped"]) == (2, 1)


def test_a_question_re_asked_and_corrected_is_worse_than_a_weak_one():
    rows = worst_questions(
        [answer("r1", "Bad?"), answer("r2", "weak?", groundedness=0.5), answer("r3", "good?")],
        [
            vote("question_reasked", request_id="r1"),
            vote("correction", "x", request_id="r1"),
            vote("thumbs", "-1", request_id="gone", question="never answered?"),
        ],
    )
    assert [row["question"] for row in rows] == ["Bad?", "never answered?", "weak?"]


def test_one_answer_has_one_vote_and_the_last_word_counts():
    acts = [
        Act("a", "thumbs", "-1"),
        Act("a", "stars", "1"),
        Act("a", "correction", "It is four."),
        Act("b", "thumbs", "-1"),
        Act("b", "thumbs", "1"),
        Act("c", "stars", "4"),
        Act("d", "stars", "3"),
        Act("e", "thumbs", "1"),
        Act("e", "stars", "3"),
    ]
    assert count_votes(acts) == (3, 1)


@pytest.mark.parametrize(
    "kind", ["citation_opened", "answer_copied", "question_reasked", "comment"]
)
def test_what_is_no_vote_is_not_counted(kind):
    assert count_votes([Act("a", kind, None)] * 9) == (0, 0)


def test_the_wilson_interval_of_known_counts():
    assert wilson(18, 20) == pytest.approx((0.6990, 0.9721), abs=1e-4)
    assert wilson(0, 4) == pytest.approx((0.0, 0.4899), abs=1e-4)
    assert wilson(0, 3)[1] > 0.5
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 10, z=1.0) == pytest.approx((0.3492, 0.6508), abs=1e-4)


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_wilson_interval_holds_the_share_and_stays_in_bounds(good, bad):
    low, high = wilson(good, good + bad)
    assert 0.0 <= low < high <= 1.0
    if good + bad:
        assert low - 1e-9 <= good / (good + bad) <= high + 1e-9


def test_one_bad_vote_leads_no_list_and_is_no_finding():
    answers = [answer("once", "Asked once?")]
    answers += [answer(f"r{n}", "Asked often?") for n in range(8)]
    votes = [vote("thumbs", "-1", request_id="once")]
    votes += [vote("thumbs", "1" if n == 0 else "-1", request_id=f"r{n}") for n in range(8)]
    often, once = worst_questions(answers, votes)
    assert (often["question"], often["votes"], often["finding"]) == ("Asked often?", 8, True)
    assert often["approval_high"] == pytest.approx(0.4709, abs=1e-4)
    assert (once["question"], once["votes"], once["finding"]) == ("Asked once?", 1, False)


class Message:
    body = b"7"

    def __init__(self):
        self.done = []

    async def ack(self):
        self.done.append("ack")

    async def retry(self, delay=0.0):
        self.done.append("retry")

    async def drop(self):
        self.done.append("drop")


@pytest.mark.parametrize(
    ("outcome", "said", "done"),
    [
        (True, "stored", ["stored 7", "ack"]),
        (False, "duplicate", ["stored 7", "ack"]),
        (Unavailable("full"), "waiting", ["stored 7", "retry"]),
        (NotUnderstood(), "refused", ["drop"]),
    ],
)
async def test_a_message_is_ended_once_and_after_its_commit(outcome, said, done):
    message = Message()

    def understand(body):
        if isinstance(outcome, NotUnderstood):
            raise outcome
        return int(body)

    async def append(event):
        message.done.append(f"stored {event}")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert await consume(message, understand, append) == said
    assert message.done == done


def test_drift_is_measured_against_the_window_before():
    current = [answer(intent="small_talk"), answer(intent="question", day="2026-01-02")]
    rows, divergence = intent_drift(current, [answer(intent="question")])
    assert [row["divergence"] for row in rows] == [1.0, 0.0]
    assert divergence == pytest.approx(0.3113, abs=1e-4)
    assert intent_drift(current, [])[1] is None


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@A1", "\t=1", "|cmd", " =1", "\r=1", "%x"])
def test_csv_cells_that_start_a_formula_are_made_text(start):
    text = to_csv([{"question": start, "n": -1}])
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["question"].startswith("'")
    assert row["n"] == "-1"


def test_csv_survives_quotes_commas_and_newlines():
    text = to_csv([{"question": 'say "a, b"\nnow', "n": None}])
    assert list(csv.DictReader(io.StringIO(text))) == [{"question": 'say "a, b" now', "n": ""}]
    assert to_csv([]) == ""
