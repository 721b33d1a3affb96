"""The figures of the reports: plain functions over rows, no database and no web framework."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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

    @property
    def badness(self) -> float:
        """Bad signs an asking: votes against, corrections, repeats, low stars, weak grounds."""
        signs = float(self.down + self.corrections + self.reasked - self.up)
        signs += sum((3 - stars) / 2 for stars in self.stars)
        weak = sum(1.0 - value for value in self.grounded)
        return (signs + weak) / max(1, self.asked)


def worst_questions(
    answers: Iterable[Answer], votes: Iterable[Vote], limit: int = 50
) -> list[dict[str, Any]]:
    """Questions with bad signs, worst first; spellings that differ in case or spaces are one."""
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
        entry.up += vote.kind == "thumbs" and vote.value == "1"
        entry.down += vote.kind == "thumbs" and vote.value == "-1"
        entry.corrections += vote.kind == "correction"
        entry.reasked += vote.kind == "question_reasked"
        if vote.kind == "stars" and vote.value:
            entry.stars.append(int(vote.value))
    rows = [
        {
            "question": entry.text,
            "badness": round(entry.badness, 3),
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
        for entry in questions.values()
        if entry.badness > 0
    ]
    return sorted(rows, key=lambda row: (-float(str(row["badness"])), str(row["question"])))[:limit]


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
