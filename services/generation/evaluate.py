"""`python -m services.generation.evaluate`: what a prompt is worth with the model that runs.

Asks a running generation service the handbook's plain and paraphrased questions of the train and
validation splits (the test split is never read). The context is the gold section, with the
beginning of the section after it as a second source. An answer is exact if it holds every keyword
of its question.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = {"plain", "paraphrase"}
SPLITS = {"train", "validation"}
LONGEST = 130
"""Words of a gold section; context_aggregation hands over no more than about this."""
SECOND = 40


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    language: str
    kind: str
    keywords: list[str]
    context: str


@dataclass(frozen=True, slots=True)
class Outcome:
    exact: bool
    cited: bool
    first_token: float
    """Seconds."""
    prompt_tokens: int
    cached_tokens: int
    answer: str


def fold(text: str) -> str:
    """Lower case, no accents, single spaces: how keywords are compared."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(plain.split())


def is_exact(answer: str, keywords: Sequence[str]) -> bool:
    """Whether the answer holds each keyword, or one of its alternatives (`five|5`)."""
    said = fold(answer)
    return all(any(fold(one) in said for one in keyword.split("|")) for keyword in keywords)


def sections(folder: Path) -> Iterator[tuple[str, str]]:
    """(passage id, text) of the handbook, in the order of each page."""
    for path in sorted([*folder.glob("en/*.md"), *folder.glob("pt/*.md")]):
        page = f"{path.parent.name}/{path.stem}"
        body = path.read_text("utf-8").split("---", 2)[2]
        for index, part in enumerate(re.split(r"^## ", body, flags=re.M)):
            heading, _, text = part.partition("\n") if index else ("", "", part)
            text = " ".join(re.sub(r"^# .*$", "", text, flags=re.M).split())
            slug = re.sub(r"[^a-z0-9]+", "-", fold(heading)).strip("-")
            yield (f"{page}#{slug}" if index else page), text


def read_questions(folder: Path, limit: int) -> list[Question]:
    """`limit` questions of each kind and language that the gold section answers in its words."""
    texts = dict(sections(folder))
    names = list(texts)
    found: dict[tuple[str, str], list[Question]] = {}
    for line in (folder / "questions.jsonl").read_text("utf-8").splitlines():
        item = json.loads(line)
        gold = item["relevant"][0] if len(item["relevant"]) == 1 else ""
        if item["kind"] not in KINDS or item["split"] not in SPLITS or gold not in texts:
            continue
        text = texts[gold]
        if len(text.split()) > LONGEST or not is_exact(text, item["keywords"]):
            continue
        second = texts[names[(names.index(gold) + 1) % len(names)]]
        context = f"[1] {text}\n[2] {' '.join(second.split()[:SECOND])}"
        key = (item["kind"], item["language"])
        found.setdefault(key, []).append(
            Question(item["question"], key[1], key[0], item["keywords"], context)
        )
    chosen = []
    for group in found.values():
        random.Random(7).shuffle(group)
        chosen += group[:limit]
    return chosen


def ask(url: str, question: Question, version: str | None, seed: int) -> Outcome:
    prompt: dict[str, Any] = {
        "template": "answer",
        "language": question.language,
        "variables": {"question": question.text, "context": question.context},
    }
    if version:
        prompt["version"] = version
    body = {
        "prompt": prompt,
        "max_tokens": 160,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    started, first, answer = time.perf_counter(), 0.0, ""
    usage: dict[str, Any] = {}
    with urllib.request.urlopen(request, timeout=120) as response:
        for raw in response:
            line = raw.decode().strip()
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices", []):
                text = choice["delta"].get("content") or ""
                if text and not answer:
                    first = time.perf_counter() - started
                answer += text
    details = usage.get("prompt_tokens_details") or {}
    return Outcome(
        is_exact(answer, question.keywords),
        re.search(r"\[\d+\]", answer) is not None,
        first,
        usage.get("prompt_tokens", 0),
        details.get("cached_tokens") or 0,
        answer,
    )


def evaluate(url: str, questions: Sequence[Question], version: str | None) -> list[Outcome]:
    # At temperature 0 the seed changes nothing but the key in the service's own prompt cache, whose
    # answers would look very fast.
    seed = time.time_ns() % 2**31
    outcomes = []
    for number, question in enumerate(questions, start=1):
        if sys.stderr.isatty():
            print(f"\r{version or 'default'} {number}/{len(questions)}", end="", file=sys.stderr)
        outcomes.append(ask(url, question, version, seed))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return outcomes


def print_table(version: str, questions: Sequence[Question], outcomes: Sequence[Outcome]) -> None:
    for language in ("en", "pt"):
        for kind in sorted(KINDS):
            of_kind = [
                outcome
                for question, outcome in zip(questions, outcomes, strict=True)
                if (question.language, question.kind) == (language, kind)
            ]
            if of_kind:
                exact = sum(outcome.exact for outcome in of_kind)
                cited = sum(outcome.cited for outcome in of_kind)
                print(
                    f"{version:8} {language}  {kind:11} {exact:3}/{len(of_kind)} exact  "
                    f"{cited:3}/{len(of_kind)} cited"
                )
    new = [one.prompt_tokens - one.cached_tokens for one in outcomes]
    first = [one.first_token for one in outcomes]
    # Reading the new tokens is nearly all of the time to the first one.
    rate = sum(new) / max(1e-9, sum(first))
    print(
        f"{version:8} first token p50 {statistics.median(first):.2f} s; prompt tokens p50 "
        f"{statistics.median(one.prompt_tokens for one in outcomes):.0f}, new ones p50 "
        f"{statistics.median(new):.0f}; {rate:.0f} new tokens/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m services.generation.evaluate",
        description="Exactness, citations and first token of prompt versions, on the handbook.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8009", help="the generation service")
    parser.add_argument("--handbook", type=Path, default=Path("handbook"))
    parser.add_argument("--limit", type=int, default=5, help="questions of each kind and language")
    parser.add_argument("--versions", nargs="*", default=[""], help="prompt versions, such as v1")
    parser.add_argument("--show", action="store_true", help="print each answer")
    options = parser.parse_args()
    if not (options.handbook / "questions.jsonl").is_file():
        sys.exit(f"There is no handbook at {options.handbook}; name its folder with --handbook.")
    questions = read_questions(options.handbook, options.limit)
    for version in options.versions:
        try:
            outcomes = evaluate(options.url, questions, version or None)
        except (urllib.error.URLError, TimeoutError) as error:
            sys.exit(f"The generation service at {options.url} does not answer: {error}")
        if options.show:
            for question, outcome in zip(questions, outcomes, strict=True):
                mark = "exact" if outcome.exact else "-"
                print(f"{mark:6}{question.text}\n      {outcome.answer}\n      {question.keywords}")
        print_table(version or "default", questions, outcomes)


if __name__ == "__main__":
    main()
