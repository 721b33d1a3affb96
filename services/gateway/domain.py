"""What the gateway decides by itself: rates, order after reranking, chat messages, what stays
inside."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ADDRESS = re.compile(
    r"""\b(?:https?|nats|redis|postgresql(?:\+\w+)?)://[^\s"'<>)\]]+  # a URL
    |\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b                             # an IPv4 address
    |\b(?=[\w.-]*[A-Za-z])[\w.-]+:\d{4,5}\b(?![\w:])                   # host:port
    """,
    re.VERBOSE,
)
_LONGEST_QUESTION = 2000
_HISTORY = 20


@dataclass(slots=True)
class Bucket:
    """Tokens of one caller, and when there were so many: seconds of a monotonic clock."""

    tokens: float
    at: float


def take_token(bucket: Bucket, now: float, *, rate: float, capacity: float) -> int:
    """Take a token: 0 if there was one, else whole seconds until there is. Changes `bucket`.

    `rate` tokens a second flow in, up to `capacity`; nothing runs in between, the refill is worked
    out when somebody comes. A `now` before `bucket.at` counts as no time passed.
    """
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate)
    bucket.at += elapsed
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((1 - bucket.tokens) / rate)


def scrubbed(value: Any) -> Any:
    """`value` with network addresses replaced, in every string of it."""
    if isinstance(value, str):
        return _ADDRESS.sub("(internal address)", value)
    if isinstance(value, Mapping):
        return {name: item if name == "type" else scrubbed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [scrubbed(item) for item in value]
    return value


def index_text(passage: Mapping[str, Any]) -> str:
    """A passage as it is embedded, indexed and reranked: title, heading and text."""
    title, heading, text = passage["title"], passage["heading"], str(passage["text"])
    if not title:
        return text
    return f"{title} — {heading}\n{text}" if heading else f"{title}\n{text}"


def reordered(
    hits: Sequence[dict[str, Any]], results: Sequence[Mapping[str, Any]], top_k: int
) -> list[dict[str, Any]]:
    """Hits in the reranker's order, each with its `rerank_score`; what it left out comes after.

    The fused `score` and `provenance` stay: one can see what reranking changed.
    """
    ranked = [
        hits[item["index"]] | {"rerank_score": item["relevance_score"]}
        for item in sorted(results, key=lambda item: (-item["relevance_score"], item["index"]))
    ]
    seen = {item["index"] for item in results}
    rest = [hit | {"rerank_score": None} for at, hit in enumerate(hits) if at not in seen]
    return [*ranked, *rest][:top_k]


class NoQuestion(ValueError):
    """The messages hold nothing to answer. `field` names the place."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def question_and_history(messages: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """The last user message, and the earlier ones, oldest first, out of (role, text) pairs.

    System and assistant messages are not used: the prompt belongs to the generation service, and
    what an assistant said is not evidence. Raises `NoQuestion`.
    """
    users = [(at, text) for at, (role, text) in enumerate(messages) if role == "user"]
    if not users:
        raise NoQuestion("messages", "one message must have the role `user`")
    at, question = users[-1]
    if not question.strip():
        raise NoQuestion(f"messages.{at}.content", "the question is empty")
    if len(question) > _LONGEST_QUESTION:
        raise NoQuestion(
            f"messages.{at}.content", f"a question has at most {_LONGEST_QUESTION} characters"
        )
    earlier = [text[:_LONGEST_QUESTION] for _, text in users[:-1] if text.strip()]
    return question, earlier[-_HISTORY:]
