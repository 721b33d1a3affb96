"""What is done with feedback: votes counted, events taken once, the figures of the reports.

Plain functions, no database and no web framework.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

Kind = Literal[
    "thumbs",
    "stars",
    "comment",
    "correction",
    "citation_opened",
    "answer_copied",
    "question_reasked",
]


@dataclass(frozen=True)
class Answer:
    """One `answer.completed` event, the parts that reports use. Times in milliseconds."""

    day: str
    request_id: str
    question: str
    intent: str
    kind: str
    degraded: int
    refused: bool
    groundedness: float | None
    total_ms: float | None


@dataclass(frozen=True)
class Vote:
    """One feedback row, the parts that reports use."""

    day: str
    request_id: str
    kind: str
    value: str | None
    question: str | None


class Act(NamedTuple):
    """What one reader did with one answer. `value` is text: `"1"`, `"-1"`, a number of stars."""

    request_id: str
    kind: str
    value: str | None


# -- taking events ------------------------------------------------------------------------

T = TypeVar("T")


class NotUnderstood(Exception):
    """This message is not an event, and never will be."""


class Unavailable(Exception):
    """Nothing was stored: the disk is full, the database is gone, or too much waits."""


class Delivered(Protocol):
    """A message that the broker keeps until one of these has been called."""

    @property
    def body(self) -> bytes: ...

    async def ack(self) -> None: ...

    async def retry(self, delay: float = 0.0) -> None: ...

    async def drop(self) -> None: ...


async def consume(
    delivery: Delivered,
    understand: Callable[[bytes], T],
    append: Callable[[T], Awaitable[bool]],
) -> str:
    """Store one message's event: many deliveries, one effect. Says what became of it.

    `append` is true when the event is new and durable, false when its id was stored before.
    """
    try:
        event = understand(delivery.body)
    except NotUnderstood:
        await delivery.drop()
        return "refused"
    try:
        new = await append(event)
    except Unavailable:
        await delivery.retry(5.0)
        return "waiting"
    # Only now: a message that is acknowledged before the commit is lost if that fails.
    await delivery.ack()
    return "stored" if new else "duplicate"


# -- votes --------------------------------------------------------------------------------


def count_votes(acts: Iterable[Act]) -> tuple[int, int]:
    """(good, bad): what readers said of answers, one vote an answer, the last word counts.

    Only explicit acts are votes: thumbs, stars (three say neither) and corrections. `acts` come
    in the order in which they were done.
    """
    said: dict[str, bool] = {}
    for request_id, kind, value in acts:
        if kind == "thumbs":
            said[request_id] = value == "1"
        elif kind == "stars" and value != "3":
            said[request_id] = value in ("4", "5")
        elif kind == "correction":
            said[request_id] = False
    good = sum(said.values())
    return good, len(said) - good


def wilson(good: int, votes: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of the share of good votes, low and high end; 0 to 1 without votes.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22,
    1927. `z` is the normal quantile of the confidence, 1.96 for 95 %.
    """
    if not votes:
        return 0.0, 1.0
    middle = (good + z * z / 2) / (votes + z * z)
    half = z / (votes + z * z) * math.sqrt(good * (votes - good) / votes + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


CountVotes = Callable[[Sequence[Act]], tuple[int, int]]
Interval = Callable[[int, int], tuple[float, float]]

# -- reports ------------------------------------------------------------------------------


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile of values in ascending order; None without values."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def jensen_shannon(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Jensen–Shannon divergence in bits, 0 (same) to 1 (nothing in common); counts or shares.

    J. Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37, 1991.
    None when one of them is empty.
    """
    total_one, total_other = sum(one.values()), sum(other.values())
    if total_one <= 0 or total_other <= 0:
        return None
    divergence = 0.0
    for name in {*one, *other}:
        p, q = one.get(name, 0) / total_one, other.get(name, 0) / total_other
        middle = (p + q) / 2
        divergence += sum(x / 2 * math.log2(x / middle) for x in (p, q) if x > 0)
    return min(1.0, max(0.0, divergence))


def by_day(answers: Iterable[Answer], votes: Iterable[Vote]) -> list[dict[str, Any]]:
    """One row a day: how many answers, how good, how fast, and what readers did."""
    answered: dict[str, list[Answer]] = defaultdict(list)
    voted: dict[str, list[Vote]] = defaultdict(list)
    for answer in answers:
        answered[answer.day].append(answer)
    for vote in votes:
        voted[vote.day].append(vote)
    rows = []
    for day in sorted({*answered, *voted}):
        items, acts = answered[day], voted[day]
        kinds = Counter(vote.kind for vote in acts)
        times = sorted(a.total_ms for a in items if a.total_ms is not None)
        stars = [int(v.value) for v in acts if v.kind == "stars" and v.value]
        rows.append(
            {
                "day": day,
                "answers": len(items),
                "degraded": sum(a.degraded > 0 for a in items),
                "refused": sum(a.refused for a in items),
                "groundedness": _mean([a.groundedness for a in items]),
                "p50_ms": percentile(times, 0.5),
                "p95_ms": percentile(times, 0.95),
                "thumbs_up": sum(v.kind == "thumbs" and v.value == "1" for v in acts),
                "thumbs_down": sum(v.kind == "thumbs" and v.value == "-1" for v in acts),
                "stars": _mean(stars),
                "comments": kinds["comment"],
                "corrections": kinds["correction"],
                "citations_opened": kinds["citation_opened"],
                "answers_copied": kinds["answer_copied"],
                "questions_reasked": kinds["question_reasked"],
            }
        )
    return rows


def by_stage(timings: Iterable[tuple[str, str, float]]) -> list[dict[str, Any]]:
    """One row a stage out of (stage, status, milliseconds), slowest first by its p95.

    Times are those of stages that ran; skipped ones took none.
    """
    times: dict[str, list[float]] = defaultdict(list)
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    for stage, status, ms in timings:
        statuses[stage][status] += 1
        if status != "skipped":
            times[stage].append(ms)
    rows = []
    for stage, counts in statuses.items():
        ordered = sorted(times[stage])
        rows.append(
            {
                "stage": stage,
                "runs": counts.total(),
                **{name: counts[name] for name in ("ok", "degraded", "failed", "skipped")},
                "mean_ms": _mean(ordered),
                "p50_ms": percentile(ordered, 0.5),
                "p95_ms": percentile(ordered, 0.95),
                "p99_ms": percentile(ordered, 0.99),
                "max_ms": ordered[-1] if ordered else None,
            }
        )
    return sorted(rows, key=lambda row: (-(row["p95_ms"] or 0.0), row["stage"]))


@dataclass
class _Question:
    text: str = ""
    asked: int = 0
    grounded: list[float] = field(default_factory=list)
    refused: int = 0
    up: int = 0
    down: int = 0
    stars: list[int] = field(default_factory=list)
    corrections: int = 0
    reasked: int = 0
    requests: list[str] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)

    @property
    def badness(self) -> float:
        """Bad signs an asking: votes against, corrections, repeats, low stars, weak grounds."""
        signs = float(self.down + self.corrections + self.reasked - self.up)
        signs += sum((3 - stars) / 2 for stars in self.stars)
        weak = sum(1.0 - value for value in self.grounded)
        return (signs + weak) / max(1, self.asked)


def worst_questions(
    answers: Iterable[Answer],
    votes: Iterable[Vote],
    limit: int = 50,
    *,
    count: CountVotes = count_votes,
    interval: Interval = wilson,
) -> list[dict[str, Any]]:
    """Questions with bad signs; spellings that differ in case or spaces are one.

    First those whose share of good votes is low even at the upper end of its interval: one bad
    vote leads no list. A `finding` is a question where that end is below one half.
    """
    questions: dict[str, _Question] = defaultdict(_Question)
    asked_by: dict[str, str] = {}
    for answer in answers:
        key = _key(answer.question)
        asked_by[answer.request_id] = key
        entry = questions[key]
        entry.text = entry.text or answer.question
        entry.asked += 1
        entry.refused += answer.refused
        entry.requests.append(answer.request_id)
        if answer.groundedness is not None:
            entry.grounded.append(answer.groundedness)
    for vote in votes:
        key = asked_by.get(vote.request_id) or _key(vote.question or "")
        if not key:
            continue
        entry = questions[key]
        entry.text = entry.text or vote.question or ""
        if vote.request_id not in entry.requests:
            entry.requests.append(vote.request_id)
        entry.acts.append(Act(vote.request_id, vote.kind, vote.value))
        entry.up += vote.kind == "thumbs" and vote.value == "1"
        entry.down += vote.kind == "thumbs" and vote.value == "-1"
        entry.corrections += vote.kind == "correction"
        entry.reasked += vote.kind == "question_reasked"
        if vote.kind == "stars" and vote.value:
            entry.stars.append(int(vote.value))
    rows = []
    for entry in questions.values():
        if entry.badness <= 0:
            continue
        good, bad = count(entry.acts)
        low, high = interval(good, good + bad)
        row = {
            "question": entry.text,
            "badness": round(entry.badness, 3),
            "finding": high < 0.5,
            "votes": good + bad,
            "approval_low": round(low, 4),
            "approval_high": round(high, 4),
            "asked": entry.asked,
            "thumbs_down": entry.down,
            "thumbs_up": entry.up,
            "stars": _mean(entry.stars),
            "corrections": entry.corrections,
            "reasked": entry.reasked,
            "refused": entry.refused,
            "groundedness": _mean(entry.grounded),
            "request_ids": " ".join(entry.requests[-5:]),
        }
        rows.append((high, -entry.badness, entry.text, row))
    return [row for *_, row in sorted(rows, key=lambda item: item[:3])[:limit]]


def intent_drift(
    current: Iterable[Answer], previous: Iterable[Answer]
) -> tuple[list[dict[str, Any]], float | None]:
    """Shares of intents by day, and the divergence of the whole window from the one before it.

    Each day's `divergence` is that from the previous window too.
    """
    before = Counter(answer.intent for answer in previous)
    days: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in current:
        days[answer.day][answer.intent] += 1
    whole: Counter[str] = sum(days.values(), Counter())
    names = sorted({*whole, *before})
    rows = [
        {
            "day": day,
            "answers": counts.total(),
            **{name: round(counts[name] / counts.total(), 4) for name in names},
            "divergence": _round(jensen_shannon(counts, before)),
        }
        for day, counts in sorted(days.items())
    ]
    return rows, _round(jensen_shannon(whole, before))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """RFC 4180 text with a head line.

    Text that a spreadsheet would run as a formula gets an apostrophe before it (OWASP, CSV
    Injection); a newline inside a cell becomes a space.
    """
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\r\n")
    writer.writerow({name: _cell(name) for name in rows[0]})
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


_FORMULA = ("=", "+", "-", "@", "|", "%", "＝", "＋", "－", "＠")


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    return "'" + text if text[:1] in _FORMULA else text


def _key(question: str) -> str:
    return " ".join(question.casefold().split())


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
