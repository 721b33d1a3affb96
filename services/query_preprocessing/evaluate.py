"""What each step is worth: `python -m services.query_preprocessing.evaluate`.

Reads the handbook with its questions, and the test collections in WORKSHOP_EVAL_DIR or
../shared/eval when there are any. Retrieval effects are measured with a plain BM25 over the
handbook's sections.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import Stemmer

from .domain import Options, Preprocessor
from .intent import PATTERNS
from .text import fold
from .vocabulary import Vocabulary

_WORDS = re.compile(r"[^\W_]+")
_HEADING = re.compile(r"^## +(.+)$", re.MULTILINE)
_STEM = {"en": Stemmer.Stemmer("english"), "pt": Stemmer.Stemmer("portuguese")}


def read_sections(folder: Path) -> dict[str, str]:
    """Text (title, heading, body) of every section of the handbook, by passage id."""
    found = {}
    for page in sorted(folder.glob("*/*.md")):
        _, front, body = page.read_text("utf-8").split("---\n", 2)
        title = next(line[7:].strip() for line in front.splitlines() if line.startswith("title: "))
        parts = _HEADING.split(body)
        for heading, text in zip(["", *parts[1::2]], parts[::2], strict=True):
            slug = re.sub(r"[^a-z0-9]+", "-", fold(heading)).strip("-")
            document = f"{page.parent.name}/{page.stem}"
            found[f"{document}#{slug}" if slug else document] = f"{title} {heading}\n{text}"
    return found


def vocabulary_of(texts: Iterable[str]) -> Vocabulary:
    """Words with their document frequencies, as sparse_retrieval counts them."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(_WORDS.findall(text.lower())))
    return Vocabulary(counts)


def _terms(text: str, language: str) -> list[str]:
    stop = PATTERNS[language].stopwords
    return _STEM[language].stemWords([w for w in _WORDS.findall(fold(text)) if w not in stop])


class Bm25:
    """BM25 (k1 = 1.2, b = 0.75) with an inverted index."""

    def __init__(self, texts: Mapping[str, str], language: str) -> None:
        self._language = language
        bags = {name: Counter(_terms(text, language)) for name, text in texts.items()}
        lengths = {name: sum(bag.values()) for name, bag in bags.items()}
        mean = statistics.fmean(lengths.values())
        self._postings: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for name, bag in bags.items():
            norm = 1.2 * (0.25 + 0.75 * lengths[name] / mean)
            for term, count in bag.items():
                self._postings[term].append((name, count * 2.2 / (count + norm)))
        self._size = len(bags)

    def rank(self, query: str, k: int = 10) -> list[str]:
        scores: defaultdict[str, float] = defaultdict(float)
        for term in _terms(query, self._language):
            found = self._postings.get(term, [])
            idf = math.log(1 + (self._size - len(found) + 0.5) / (len(found) + 0.5))
            for name, weight in found:
                scores[name] += idf * weight
        return sorted(scores, key=lambda name: (-scores[name], name))[:k]


def ndcg(ranked: Sequence[str], relevant: Sequence[str]) -> float:
    """nDCG@10 with binary gains."""
    wanted = set(relevant)
    gain = sum(1 / math.log2(at + 2) for at, name in enumerate(ranked[:10]) if name in wanted)
    return gain / sum(1 / math.log2(at + 2) for at in range(min(10, len(wanted))))


@dataclass(frozen=True, slots=True)
class Collection:
    name: str
    language: str
    texts: list[str]
    queries: list[str]


def read_collections(folder: Path) -> list[Collection]:
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (path / "queries.jsonl").exists():
            texts = [json.loads(line) for line in (path / "corpus.jsonl").open(encoding="utf-8")]
            queries = [json.loads(line) for line in (path / "queries.jsonl").open(encoding="utf-8")]
            found.append(
                Collection(
                    path.name,
                    path.name.rsplit("-", 1)[-1],
                    [f"{item['title']} {item['text']}" for item in texts],
                    [item["text"] for item in queries],
                )
            )
    return found


def read_questions(folder: Path, splits: set[str]) -> list[dict[str, Any]]:
    files = [folder / "questions.jsonl"]
    items = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    return [item for item in items if item["split"] in splits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--handbook", type=Path, default=Path("handbook"))
    parser.add_argument(
        "--eval",
        type=Path,
        default=Path(os.environ.get("WORKSHOP_EVAL_DIR", "../shared/eval")),
        help="folder of BEIR collections whose names end with their language",
    )
    parser.add_argument("--splits", nargs="+", default=["train", "validation"])
    parser.add_argument("-v", "--verbose", action="store_true", help="print what went wrong")
    arguments = parser.parse_args()
    sections = read_sections(arguments.handbook)
    questions = read_questions(arguments.handbook, set(arguments.splits))
    processor = Preprocessor(vocabulary=vocabulary_of(sections.values()))
    collections = read_collections(arguments.eval)

    language(processor, questions, collections, arguments.verbose)
    spelling(processor, questions, collections, sections, arguments.verbose)
    intent(processor, questions, arguments.verbose)
    retrieval(processor, questions, sections)
    speed(processor, questions)


def language(
    processor: Preprocessor,
    questions: list[dict[str, Any]],
    collections: list[Collection],
    verbose: bool,
) -> None:
    print("Language, share right")
    sets = {"handbook": [(q["question"], q["language"]) for q in questions]}
    sets |= {c.name: [(text, c.language) for text in c.queries] for c in collections}
    for name, pairs in sets.items():
        right = 0
        for text, expected in pairs:
            found = processor.run(text, steps=dict.fromkeys(("spelling", "intent"), False))
            right += found.language_detected == expected
            if verbose and found.language_detected != expected:
                print("   ", found.language_detected, found.language_confidence, text)
        print(f"  {name:12} {right / len(pairs):.2%} of {len(pairs)}")


def spelling(
    processor: Preprocessor,
    questions: list[dict[str, Any]],
    collections: list[Collection],
    sections: Mapping[str, str],
    verbose: bool,
) -> None:
    print("Spelling, share of questions that are changed")
    sets = {
        "misspelled": [q["question"] for q in questions if q["kind"] == "misspelled"],
        "correct": [q["question"] for q in questions if q["kind"] in ("plain", "paraphrase")],
    }
    for name, texts in sets.items():
        changed = 0
        for text in texts:
            found = processor.run(text)
            changed += found.suggestion is not None
            if verbose and (found.suggestion is not None or name == "misspelled"):
                print("   ", name, "|", text, "|", found.steps[2].detail)
        print(f"  handbook, {name:11} {changed / len(texts):.1%} of {len(texts)}")
    own = processor.vocabulary
    for c in collections:
        for label, vocabulary in (
            ("its own words", vocabulary_of(c.texts)),
            ("the handbook's words", own),
        ):
            processor.set_vocabulary(vocabulary)
            runs = [processor.run(text) for text in c.queries]
            hits = [item for item in runs if item.suggestion is not None]
            print(f"  {c.name}, {label:21} {len(hits) / len(runs):.1%} of {len(runs)}")
            if verbose:
                for item in hits:
                    print("     ", item.steps[2].detail, "|", item.query)
    processor.set_vocabulary(own)


def intent(processor: Preprocessor, questions: list[dict[str, Any]], verbose: bool) -> None:
    print("Intent by kind of question")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for q in questions:
        found = processor.run(q["question"], q.get("history", ()))
        label: str = found.intent
        if q["kind"] == "injection" and found.intent == "question":
            label += ", stripped" if "orders" in found.steps[3].detail else ", untouched"
        table[q["kind"]][label] += 1
        usual = {"follow_up": "follow_up", "small_talk": "small_talk"}.get(q["kind"], "question")
        if verbose and (found.intent != usual or q["kind"] == "injection"):
            print("   ", q["kind"], "|", found.intent, "|", q["question"], "|", found.search_query)
    # A new subject in a running conversation must not be taken for a follow-up.
    for q, earlier in zip(questions, questions[len(questions) // 2 :] + questions, strict=False):
        if q["kind"] in ("plain", "paraphrase") and q["language"] == earlier["language"]:
            found = processor.run(q["question"], [earlier["question"]])
            table["new subject"][found.intent] += 1
            if verbose and found.intent != "question":
                print("    new subject |", found.intent, "|", q["question"], found.steps[3].detail)
    for kind, counts in sorted(table.items()):
        print(f"  {kind:15}", ", ".join(f"{name} {n}" for name, n in counts.most_common()))


def retrieval(
    processor: Preprocessor, questions: list[dict[str, Any]], sections: Mapping[str, str]
) -> None:
    print("Retrieval, nDCG@10 of BM25 over the handbook")
    engines = {
        code: Bm25({n: t for n, t in sections.items() if n.startswith(code + "/")}, code)
        for code in ("en", "pt")
    }
    arms = {
        "as typed": (replace(processor.options, search_corrected=False), {"rewrite": False}),
        "+ spelling": (replace(processor.options, search_corrected=True), {"rewrite": False}),
        "+ rewrite": (replace(processor.options, search_corrected=False), {}),
        "+ expansion": (
            replace(processor.options, search_corrected=False, search_expanded=True),
            {"rewrite": False},
        ),
        "default": (Options(), {}),
    }
    kinds = ("plain", "paraphrase", "two_passages", "misspelled", "follow_up")
    groups = {kind: [q for q in questions if q["kind"] == kind and q["relevant"]] for kind in kinds}
    print("  " + " " * 12 + "".join(f"{kind:>14}" for kind in kinds))
    before = processor.options
    for name, (options, steps) in arms.items():
        processor.options = options
        row = []
        for group in groups.values():
            scores = []
            for q in group:
                found = processor.run(q["question"], q.get("history", ()), steps)
                ranked = engines[q["language"]].rank(found.search_query)
                scores.append(ndcg(ranked, q["relevant"]))
            row.append(statistics.fmean(scores))
        print(f"  {name:12}" + "".join(f"{value:>14.3f}" for value in row))
    processor.options = before


def speed(processor: Preprocessor, questions: list[dict[str, Any]]) -> None:
    processor.set_vocabulary(processor.vocabulary)  # forgets what was corrected before
    times = []
    for q in questions:
        started = time.perf_counter()
        processor.run(q["question"], q.get("history", ()))
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
    print(f"Time a question: p50 {p50:.2f} ms, p95 {p95:.2f} ms")


if __name__ == "__main__":
    main()
