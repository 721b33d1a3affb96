"""What the orchestrator decides by itself: fallbacks, timings, and how much may be retried."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+(?=[\"'“(\[]?[A-ZÀ-Ý0-9])")

_FIXED = {
    "small_talk": {
        "en": "Hello. Ask me something about the documents and I will answer with sources.",
        "pt": "Olá. Pergunte algo sobre os documentos e eu respondo com as fontes.",
    },
    "blocked": {
        "en": "I cannot help with that request.",
        "pt": "Não posso ajudar com esse pedido.",
    },
    "refusal": {
        "en": "I did not find an answer to this in the documents.",
        "pt": "Não encontrei a resposta para isso nos documentos.",
    },
}


def fixed_text(kind: str, language: str) -> str:
    """The answer's text where none is generated, in Portuguese or English."""
    return _FIXED[kind]["pt" if language == "pt" else "en"]


def index_text(passage: Mapping[str, Any]) -> str:
    """A passage as it is embedded, indexed and reranked: title, heading and text."""
    title, heading, text = passage["title"], passage["heading"], str(passage["text"])
    if not title:
        return text
    return f"{title} — {heading}\n{text}" if heading else f"{title}\n{text}"


def sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(" ".join(text.split())) if part]


Extract = Callable[[Sequence[Mapping[str, Any]]], str]


def extractive_answer(sources: Sequence[Mapping[str, Any]], limit: int = 2) -> str:
    """The first sentence of each of the best `limit` sources that have one, with its citation."""
    parts: list[str] = []
    for source in sources:
        if len(parts) < limit and (found := sentences(source["text"])):
            parts.append(f"{found[0]} [{source['number']}]")
    return " ".join(parts)


def cut_sources(passages: Sequence[Mapping[str, Any]], max_characters: int) -> list[dict[str, Any]]:
    """The top passages as numbered sources, whole sentences only, `max_characters` in all.

    Stands in for context_aggregation: characters and not tokens, because the tokenizer is that
    service's own. The first sentence is kept even when it alone is too long.
    """
    sources: list[dict[str, Any]] = []
    left = max_characters
    for passage in passages:
        kept: list[str] = []
        for sentence in sentences(passage["text"]):
            if len(sentence) > left and (kept or sources):
                break
            kept.append(sentence)
            left -= len(sentence) + 1
        if not kept:
            break
        names = ("id", "document", "title", "heading", "language")
        sources.append(
            {"number": len(sources) + 1}
            | {name: passage[name] for name in names}
            | {"text": " ".join(kept), "passages": [passage["id"]]}
        )
        if left <= 0:
            break
    return sources


def context_of(sources: Sequence[Mapping[str, Any]]) -> str:
    """Numbered sources as the text that goes into the prompt."""
    return "\n".join(f"[{source['number']}] {source['text']}" for source in sources)


@dataclass(slots=True)
class StageTiming:
    stage: str
    start_ms: float
    ms: float = 0.0
    status: str = "ok"


@dataclass(slots=True)
class Trace:
    """Timings of one answer, in milliseconds from its start."""

    started: float = field(default_factory=time.perf_counter)
    timings: list[StageTiming] = field(default_factory=list)

    def now_ms(self) -> float:
        return round((time.perf_counter() - self.started) * 1000, 2)

    @contextmanager
    def stage(self, name: str) -> Iterator[StageTiming]:
        timing = StageTiming(name, self.now_ms())
        self.timings.append(timing)
        try:
            yield timing
        except BaseException:
            timing.status = "failed"
            raise
        finally:
            timing.ms = round(self.now_ms() - timing.start_ms, 2)

    def skip(self, name: str) -> StageTiming:
        timing = StageTiming(name, self.now_ms(), status="skipped")
        self.timings.append(timing)
        return timing


class RetryBudget:
    """Allows retries as a share of the calls made (Google SRE book, ch. 21): a dependency that
    fails every call gets `ratio` more calls and not twice as many.

    A token bucket: each call earns `ratio` tokens, each retry costs one, and at most `burst` are
    saved up.
    """

    def __init__(self, ratio: float = 0.1, burst: float = 5.0) -> None:
        self.ratio = ratio
        self.burst = burst
        self._tokens = burst

    def record_call(self) -> None:
        self._tokens = min(self.burst, self._tokens + self.ratio)

    def take(self) -> bool:
        """Whether a retry may be made now; if so, it is paid for."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
