"""Answers of the running system over a collection's questions, asked through the gateway."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .collections import Collection, Query


def fold(text: str) -> str:
    """Lower case, without accents, with single spaces: how answers are compared."""
    plain = unicodedata.normalize("NFKD", text)
    bare = "".join(char for char in plain if not unicodedata.combining(char))
    return " ".join(bare.casefold().split())


def contains(text: str, wanted: str) -> bool:
    """Whether `wanted` occurs in `text` as whole words: "30" is not in "300"."""
    return re.search(rf"(?<!\w){re.escape(fold(wanted))}(?!\w)", fold(text)) is not None


def is_exact(query: Query, answer: str) -> bool:
    """Whether every thing that a correct answer must say occurs in it, in one of its forms."""
    return all(any(contains(answer, form) for form in forms) for forms in query.answers)


@dataclass(slots=True)
class AnswerRun:
    """One row a question, and what they come to."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> dict[str, float | int | None]:
        answerable = [row for row in self.rows if row["answerable"]]
        without = [row for row in self.rows if not row["answerable"]]
        cited = [row["citation_precision"] for row in answerable if row["citations"]]
        return {
            "questions": len(self.rows),
            "exact": _share(answerable, "exact"),
            "answered": _share(answerable, "answered"),
            "citation precision": sum(cited) / len(cited) if cited else None,
            "refused when unanswerable": _share(without, "refused"),
            "refused when answerable": _share(answerable, "refused"),
            "degraded": _share(self.rows, "degraded"),
            "median seconds": _median([row["seconds"] for row in self.rows]),
            "median first token seconds": _median(
                [row["first_token_ms"] / 1000 for row in self.rows if row["first_token_ms"]]
            ),
        }


def ask_all(
    ask: Callable[[str, list[str]], dict[str, Any]],
    collection: Collection,
    queries: Sequence[Query],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> AnswerRun:
    """Put each question to `ask(question, history)`, one after the other, and grade it."""
    run = AnswerRun()
    for number, query in enumerate(queries, 1):
        started = time.perf_counter()
        answer = ask(query.text, query.history)
        seconds = time.perf_counter() - started
        gold = collection.qrels.get(query.id, {})
        cited = answer["citations"]
        sources = {source["number"]: source["passages"] for source in answer["sources"]}
        right = [
            bool(gold.keys() & collection.units((name, 0.0) for name in sources[item["number"]]))
            for item in cited
        ]
        declined = answer["refused"] or answer["kind"] in ("small_talk", "blocked")
        run.rows.append(
            {
                "id": query.id,
                "kind": query.kind,
                "language": answer["language"],
                "question": query.text,
                "answer": answer["answer"],
                "answer_kind": answer["kind"],
                "answerable": query.answerable,
                "answered": not declined,
                "refused": declined,
                "exact": not declined and is_exact(query, answer["answer"]),
                "citations": len(cited),
                "citation_precision": sum(right) / len(right) if right else 0.0,
                "groundedness": answer["groundedness"],
                "degraded": bool(answer["degraded"]),
                "first_token_ms": answer["first_token_ms"],
                "seconds": round(seconds, 3),
            }
        )
        progress("answers", number, len(queries))
    return run


def _share(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    return sum(bool(row[name]) for row in rows) / len(rows) if rows else None


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None
