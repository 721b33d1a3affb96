"""`python -m services.post_processing.evaluate`: what the thresholds cost and bring.

On the handbook's train and validation questions (the test split is never read):

* Support: a reference answer against its own gold passage, which supports it, and against the
  other passages of the same page that are no gold of it, which mostly do not.
* Refusal: each question with sources found by BM25, answered with the sentences that fit it best
  (or by a model, with --generation). The unanswerable ones should be refused, the others not.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .domain import Policy, Result, Steps, postprocess
from .grounding import Evidence, Share, Source, share_in_two_sentences
from .text import fold, sentences, terms

HANDBOOK = Path("handbook")
ANSWERABLE = {"plain", "paraphrase", "misspelled", "two_passages", "cross_language"}
UNANSWERABLE = {"unanswerable", "off_topic", "injection", "personal_data"}
SPLITS = {"train", "validation"}
SOURCES = 3
SOURCE_WORDS = 60


@dataclass(frozen=True, slots=True)
class Passage:
    id: str
    title: str
    heading: str
    language: str
    text: str

    def as_source(self, number: int, text: str | None = None) -> Source:
        document = self.id.partition("#")[0]
        return Source(
            number, self.id, document, self.title, self.heading, self.language, text or self.text
        )


def read_passages(folder: Path) -> dict[str, Passage]:
    """The handbook's sections by passage id."""
    found = {}
    for path in sorted([*folder.glob("en/*.md"), *folder.glob("pt/*.md")]):
        _, front, body = path.read_text("utf-8").split("---", 2)
        title = re.search(r"^title:\s*(.+)$", front, re.M)
        document, language = f"{path.parent.name}/{path.stem}", path.parent.name
        for index, part in enumerate(re.split(r"^## ", body, flags=re.M)):
            heading, _, text = part.partition("\n") if index else ("", "", part)
            text = re.sub(r"^# .*$", "", text, flags=re.M).strip()
            slug = re.sub(r"[^a-z0-9]+", "-", fold(heading)).strip("-")
            name = f"{document}#{slug}" if index else document
            found[name] = Passage(
                name, title[1].strip() if title else "", heading.strip(), language, text
            )
    return found


def read_questions(folder: Path, splits: Container[str] = SPLITS) -> list[dict[str, Any]]:
    lines = [
        json.loads(line)
        for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()
        if line.strip()
    ]
    return [question for question in lines if question["split"] in splits]


class Bm25:
    """BM25 (Robertson and Zaragoza, 2009; k1 = 1.2, b = 0.75) over the passages of a language."""

    def __init__(self, passages: Iterable[Passage], language: str) -> None:
        self.language = language
        self.passages = [passage for passage in passages if passage.language == language]
        self._terms = [
            Counter(terms(f"{p.title} {p.heading} {p.text}", language)) for p in self.passages
        ]
        self._lengths = [sum(counts.values()) for counts in self._terms]
        self._mean = statistics.fmean(self._lengths)
        frequency = Counter(term for counts in self._terms for term in counts)
        self._idf = {
            term: math.log(1 + (len(self._terms) - n + 0.5) / (n + 0.5))
            for term, n in frequency.items()
        }

    def search(self, query: str, top_k: int) -> list[Passage]:
        wanted = set(terms(query, self.language))
        scores = []
        for counts, length in zip(self._terms, self._lengths, strict=True):
            norm = 1.2 * (0.25 + 0.75 * length / self._mean)
            scores.append(
                sum(
                    self._idf[term] * counts[term] * 2.2 / (counts[term] + norm)
                    for term in wanted
                    if term in counts
                )
            )
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_k]
        return [self.passages[index] for index in order if scores[index] > 0]

    def extract(self, passage: Passage, query: str, words: int) -> str:
        """The passage's sentences that fit the query best, in their order, `words` at most."""
        wanted = set(terms(query, self.language))
        parts = [s for line in passage.text.split("\n") for s in sentences(line)]
        value = [
            sum(self._idf.get(term, 0.0) for term in wanted & set(terms(part, self.language)))
            for part in parts
        ]
        kept: set[int] = set()
        for index in sorted(range(len(parts)), key=lambda index: -value[index]):
            if kept and sum(len(parts[i].split()) for i in [*kept, index]) > words:
                continue
            kept.add(index)
        return " ".join(parts[index] for index in sorted(kept))


# -- support ------------------------------------------------------------------------------


def support_scores(
    questions: Sequence[dict[str, Any]],
    passages: dict[str, Passage],
    share: Share = share_in_two_sentences,
) -> dict[str, list[tuple[float, bool]]]:
    """(score, figures agree) of reference answers by pair: own, other, cross, cross_other."""
    found: dict[str, list[tuple[float, bool]]] = {
        "own": [],
        "other": [],
        "cross": [],
        "cross_other": [],
    }
    for question in questions:
        gold = [passages[name] for name in question["relevant"] if name in passages]
        if not gold or not question["answer"]:
            continue
        page = gold[0].id.partition("#")[0]
        others = [p for p in passages.values() if p.id.partition("#")[0] == page and p not in gold]
        for golden, candidates in ((True, gold), (False, others)):
            for passage in candidates:
                evidence = Evidence(
                    question["question"], [passage.as_source(1)], question["language"], share
                )
                crossed = passage.language != question["language"]
                name = (
                    ("cross" if golden else "cross_other")
                    if crossed
                    else ("own" if golden else "other")
                )
                if golden and len(gold) > 1:
                    continue  # each of two passages supports half of the answer
                support = evidence.support(question["answer"], 1)
                found[name].append((support.score, support.missing == 0))
    return found


def print_support(scores: dict[str, list[tuple[float, bool]]], policy: Policy) -> None:
    for title, positive, negative, chosen in (
        ("same language", "own", "other", policy.support_threshold),
        ("other language", "cross", "cross_other", policy.cross_threshold),
    ):
        print(f"\nSupport, {title}: {len(scores[positive])} true, {len(scores[negative])} other")
        print("  threshold  true kept  other kept")
        for threshold in sorted({0.2, 0.3, 0.35, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, chosen}):
            mark = "  <- set" if threshold == chosen else ""
            print(
                f"  {threshold:9.2f}  {_kept(scores[positive], threshold):8.1%}  "
                f"{_kept(scores[negative], threshold):9.1%}{mark}"
            )
        print(
            f"  figures all in the source: true {_figures(scores[positive]):.1%}, "
            f"other {_figures(scores[negative]):.1%}"
        )


def _kept(scores: Sequence[tuple[float, bool]], threshold: float) -> float:
    return sum(score >= threshold and ok for score, ok in scores) / max(1, len(scores))


def _figures(scores: Sequence[tuple[float, bool]]) -> float:
    return sum(ok for _, ok in scores) / max(1, len(scores))


# -- refusal ------------------------------------------------------------------------------


@dataclass(slots=True)
class Case:
    question: dict[str, Any]
    sources: list[Source]
    answer: str
    gold_found: bool


def cases(
    questions: Sequence[dict[str, Any]], passages: dict[str, Passage], generation: str | None
) -> list[Case]:
    index = {language: Bm25(passages.values(), language) for language in ("en", "pt")}
    found = []
    for done, question in enumerate(questions, start=1):
        text, language = question["question"], question["language"]
        crossed = question["kind"] == "cross_language"
        searched = index[language]
        hits = searched.search(text, SOURCES)
        if crossed:  # BM25 cannot cross languages; the other sources stand beside the gold
            hits = [passages[name] for name in question["relevant"]] + hits[: SOURCES - 1]
        sources = [
            hit.as_source(number, searched.extract(hit, text, SOURCE_WORDS))
            if hit.language == language
            else hit.as_source(number)
            for number, hit in enumerate(hits, start=1)
        ]
        if generation is None:
            answer = " ".join(
                f"{sentences(source.text.replace(chr(10), ' '))[0]} [{source.number}]"
                for source in sources[:2]
            )
        else:
            answer = _ask(generation, question, sources)
            print(f"\r{done}/{len(questions)} answers", end="", file=sys.stderr)
        gold = {hit.id for hit in hits} & set(question["relevant"])
        found.append(Case(question, sources, answer, bool(gold)))
    if generation is not None:
        print(file=sys.stderr)
    return found


def _ask(url: str, question: dict[str, Any], sources: Sequence[Source]) -> str:
    context = "\n".join(f"[{source.number}] {' '.join(source.text.split())}" for source in sources)
    body = {
        "prompt": {
            "template": "answer",
            "language": question["language"],
            "variables": {"question": question["question"], "context": context},
        },
        "max_tokens": 160,
    }
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def check(case: Case, policy: Policy, mode: str, steps: Steps | None = None) -> Result:
    return postprocess(
        case.question["question"],
        case.answer,
        case.sources,
        language=case.question["language"],
        mode="extractive" if mode == "extractive" else "generated",
        policy=policy,
        steps=steps,
    )


def print_refusals(found: Sequence[Case], policy: Policy, mode: str) -> None:
    answerable = [case for case in found if case.question["kind"] in ANSWERABLE]
    unanswerable = [case for case in found if case.question["kind"] in UNANSWERABLE]
    print(
        f"\nRefusal, {mode} answers: {len(answerable)} answerable, {len(unanswerable)} unanswerable"
    )
    print("  relevance  unanswerable refused  answerable refused  ... whose gold was found")
    for threshold in sorted({0.0, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, policy.relevance_threshold}):
        at = replace(policy, relevance_threshold=threshold)
        right = [check(case, at, mode).refused for case in unanswerable]
        wrong = [check(case, at, mode).refused for case in answerable]
        with_gold = [
            refused for refused, case in zip(wrong, answerable, strict=True) if case.gold_found
        ]
        mark = "  <- set" if threshold == policy.relevance_threshold else ""
        print(
            f"  {threshold:9.2f}  {_share(right):20.1%}  {_share(wrong):18.1%}  "
            f"{_share(with_gold):23.1%}{mark}"
        )
    print("\n  kind            language  questions  refused")
    for kind in sorted(ANSWERABLE | UNANSWERABLE):
        for language in ("en", "pt"):
            refused = [
                check(case, policy, mode).refused
                for case in found
                if case.question["kind"] == kind and case.question["language"] == language
            ]
            if refused:
                print(f"  {kind:15} {language:8}  {len(refused):9}  {_share(refused):7.1%}")


def print_time(found: Sequence[Case], policy: Policy, mode: str) -> None:
    taken = []
    for case in found:
        started = time.process_time()
        check(case, policy, mode)
        taken.append((time.process_time() - started) * 1000)
    taken.sort()
    print(
        f"\nCPU time a call: p50 {taken[len(taken) // 2]:.2f} ms, "
        f"p99 {taken[int(len(taken) * 0.99)]:.2f} ms"
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / max(1, len(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m services.post_processing.evaluate",
        description="Refusal and support on the handbook's train and validation questions.",
    )
    parser.add_argument("--handbook", type=Path, default=HANDBOOK, help="folder of the handbook")
    parser.add_argument("--generation", help="URL of a generation service, for a model's answers")
    parser.add_argument("--limit", type=int, help="take only so many questions of each kind")
    options = parser.parse_args()
    if not (options.handbook / "questions.jsonl").is_file():
        sys.exit(f"There is no handbook at {options.handbook}; name its folder with --handbook.")
    passages = read_passages(options.handbook)
    questions = read_questions(options.handbook)
    policy = Policy()
    print_support(support_scores(questions, passages), policy)
    chosen = [q for q in questions if q["kind"] in ANSWERABLE | UNANSWERABLE]
    if options.limit:
        taken: Counter[tuple[str, str]] = Counter()
        kept = []
        for question in chosen:
            key = (question["kind"], question["language"])
            taken[key] += 1
            if taken[key] <= options.limit:
                kept.append(question)
        chosen = kept
    mode = "generated" if options.generation else "extractive"
    try:
        found = cases(chosen, passages, options.generation)
    except (urllib.error.URLError, TimeoutError) as error:
        sys.exit(f"The generation service at {options.generation} does not answer: {error}")
    print_refusals(found, policy, mode)
    print_time(found, policy, mode)


if __name__ == "__main__":
    main()
