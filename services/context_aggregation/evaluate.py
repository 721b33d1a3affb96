"""What the context is worth: `python -m services.context_aggregation.evaluate`.

For every handbook question with an answer, the gold passages and the hardest others (the best by
BM25 in the same language) go in; the share of questions whose keywords are still in the context
is printed for plain truncation and for extraction, with the time it takes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .domain import Options, build_context
from .settings import Settings
from .terms import fold, terms
from .tokenizer import load_tokenizer

_HEADING = re.compile(r"^## +(.+)$", re.MULTILINE)


def read_handbook(folder: Path) -> dict[str, dict[str, Any]]:
    """Sections of the handbook's pages as passages, by id."""
    found = {}
    for page in sorted(folder.glob("*/*.md")):
        language = page.parent.name
        _, front, body = page.read_text("utf-8").split("---\n", 2)
        title = next(line[7:].strip() for line in front.splitlines() if line.startswith("title: "))
        document = f"{language}/{page.stem}"
        body = re.sub(r"^# .+\n", "", body.strip(), count=1)
        parts = _HEADING.split(body)
        headings = ["", *parts[1::2]]
        for position, (heading, text) in enumerate(zip(headings, parts[::2], strict=True)):
            slug = re.sub(r"[^a-z0-9]+", "-", fold(heading)).strip("-")
            passage_id = f"{document}#{slug}" if slug else document
            found[passage_id] = {
                "id": passage_id,
                "document": document,
                "title": title,
                "heading": heading.strip(),
                "position": position,
                "language": language,
                "text": text.strip(),
            }
    return found


class Bm25:
    """BM25 (k1 = 1.2, b = 0.75) over a few thousand passages, to find hard distractors."""

    def __init__(self, passages: Iterable[Mapping[str, Any]]) -> None:
        self.passages = list(passages)
        self.bags = [
            Counter(terms(f"{p['title']} {p['heading']} {p['text']}", p["language"]))
            for p in self.passages
        ]
        self.lengths = [sum(bag.values()) for bag in self.bags]
        self.mean = statistics.fmean(self.lengths)
        counts = Counter(term for bag in self.bags for term in bag)
        size = len(self.bags)
        self.idf = {t: math.log(1 + (size - n + 0.5) / (n + 0.5)) for t, n in counts.items()}

    def top(self, query: str, language: str, k: int) -> list[Mapping[str, Any]]:
        asked = [t for t in terms(query, language) if t in self.idf]
        scored = []
        for at, (bag, length) in enumerate(zip(self.bags, self.lengths, strict=True)):
            norm = 1.2 * (0.25 + 0.75 * length / self.mean)
            score = sum(self.idf[t] * bag[t] * 2.2 / (bag[t] + norm) for t in asked if t in bag)
            if score:
                scored.append((-score, at))
        return [self.passages[at] for _, at in sorted(scored)[:k]]


def survives(keywords: list[str], text: str) -> bool:
    """Every keyword (one of its alternatives) is in `text`, case and accents aside."""
    flat = " ".join(fold(text).split())
    return all(any(fold(part.strip()) in flat for part in word.split("|")) for word in keywords)


def read_cases(folder: Path, splits: set[str], count: int = 6) -> list[dict[str, Any]]:
    """Questions with keywords, each with `count` ranked passages that hold its gold ones."""
    passages = read_handbook(folder)
    engines = {
        language: Bm25(p for p in passages.values() if p["language"] == language)
        for language in ("en", "pt")
    }
    cases = []
    for file in [folder / "questions.jsonl"]:
        for line in file.read_text("utf-8").splitlines():
            item = json.loads(line)
            gold = [passages[name] for name in item["relevant"] if name in passages]
            if item["split"] not in splits or not item["keywords"] or not gold:
                continue
            query = " ".join([*item.get("history", []), item["question"]])
            ranked = engines[gold[0]["language"]].top(query, gold[0]["language"], count)
            missing = [passage for passage in gold if passage not in ranked]
            ranked = [*ranked[: count - len(missing)], *missing]
            cases.append(item | {"query": query, "passages": ranked})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handbook", type=Path, default=Path("handbook"))
    parser.add_argument("--splits", nargs="+", default=["train", "validation"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[130, 200, 260, 400])
    arguments = parser.parse_args()
    settings = Settings()
    tokenizer = load_tokenizer(settings.tokenizer_path)
    cases = read_cases(arguments.handbook, set(arguments.splits))
    kept = sum(survives(c["keywords"], " ".join(p["text"] for p in c["passages"])) for c in cases)
    print(f"{len(cases)} questions; keywords in the 6 passages given: {kept / len(cases):.1%}")
    arms = {
        "truncation": Options(extract=False, headings=False),
        "truncation, with headings": Options(extract=False),
        "extraction": replace(settings.options(), headings=False),
        "extraction, with headings": replace(settings.options(), headings=True),
    }
    print(f"{'keywords survive':28}" + "".join(f"{n:>7} tok" for n in arguments.tokens))
    for name, options in arms.items():
        row = []
        for budget in arguments.tokens:
            good = 0
            for case in cases:
                built = build_context(
                    case["query"], case["language"], case["passages"], budget, tokenizer, options
                )
                good += survives(case["keywords"], built.context)
            row.append(good / len(cases))
        print(f"{name:28}" + "".join(f"{share:>10.1%}" for share in row))
    times = []
    for case in cases:
        started = time.perf_counter()
        build_context(
            case["query"], case["language"], case["passages"], 260, tokenizer, settings.options()
        )
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
    print(f"time for 6 passages: p50 {p50:.2f} ms, p95 {p95:.2f} ms")


if __name__ == "__main__":
    main()
