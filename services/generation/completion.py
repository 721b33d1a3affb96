"""From a request to the pieces of its answer: cache, places, retries, counting."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.chassis import (
    BadAnswer,
    CallFailed,
    DeadlineExceeded,
    Problem,
    Rejected,
    Unavailable,
    current,
    get_logger,
)

from .cache import Answer, PromptCache
from .metrics import GenerationMetrics
from .providers import Piece, Provider
from .settings import Settings


@dataclass(slots=True)
class Served:
    """One model name that can be asked for, and how many answers it is busy with."""

    name: str
    provider: Provider
    kind: str
    concurrency: int
    active: int = 0


class Completer:
    def __init__(
        self, settings: Settings, served: dict[str, Served], metrics: GenerationMetrics
    ) -> None:
        self.settings = settings
        self.served = served
        self.metrics = metrics
        self.cache = PromptCache(settings.cache_bytes)

    async def pieces(self, served: Served, request: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """The answer's pieces. Raises Problem; a failure after the first piece is one as well."""
        key = PromptCache.key(served.name, request)
        known = self.cache.get(key)
        if key is not None:
            self.metrics.cache.labels("hit" if known else "miss").inc()
        if known is not None:
            for piece in _replay(known):
                yield piece
            return
        if served.active >= served.concurrency:
            raise Problem(
                503,
                "overloaded",
                f"All {served.concurrency} places at the model {served.name} are taken. "
                "Try again after the pause given.",
                headers={"retry-after": "2"},
            )
        served.active += 1
        try:
            async with aclosing(self._generate(served, request)) as stream:
                collected = _Collector()
                async for piece in stream:
                    collected.add(piece)
                    yield piece
            if answer := collected.answer():
                self.cache.put(key, answer)
        finally:
            served.active -= 1

    async def _generate(
        self, served: Served, request: dict[str, Any]
    ) -> AsyncGenerator[Piece, None]:
        """Pieces from the provider, tried again only while nothing has come."""
        started = time.perf_counter()
        attempt = 0
        while True:
            begun = False
            try:
                stream = served.provider.stream(request, self.settings.timeout)
                async with aclosing(stream) as pieces:
                    async for piece in pieces:
                        if piece.text and not begun:
                            begun = True
                            self.metrics.first_token.labels(served.name).observe(
                                time.perf_counter() - started
                            )
                        if piece.usage:
                            self.metrics.on_usage(served.name, piece.usage)
                        yield piece
                return
            except CallFailed as error:
                when = "after" if begun else "before"
                self.metrics.failures.labels(served.name, when).inc()
                get_logger().warning(
                    "provider_failed", route=served.name, when=when, reason=error.reason
                )
                if begun or attempt >= self.settings.retries or not _may_help(error):
                    raise problem_of(error) from error
                pause = 0.1 * 2**attempt * random.uniform(0.5, 1.5)
                if pause >= current().deadline.left:
                    raise problem_of(error) from error
                attempt += 1
                self.metrics.retries.labels(served.name).inc()
                await asyncio.sleep(pause)


class _Collector:
    """Gathers pieces into the answer that the cache keeps."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._model = ""

    def add(self, piece: Piece) -> None:
        if piece.text:
            self._parts.append(piece.text)
        self._finish_reason = piece.finish_reason or self._finish_reason
        self._usage = piece.usage or self._usage
        self._model = piece.model or self._model

    def answer(self) -> Answer | None:
        if self._finish_reason is None:
            return None
        return Answer("".join(self._parts), self._finish_reason, self._model, self._usage)


def _replay(answer: Answer) -> list[Piece]:
    """A known answer in word-sized pieces, so that it streams like a new one."""
    words = answer.content.split(" ")
    texts = [word if i == 0 else " " + word for i, word in enumerate(words)]
    pieces = [Piece(text=text, model=answer.model) for text in texts if text]
    return [
        *pieces,
        Piece(finish_reason=answer.finish_reason, usage=answer.usage, model=answer.model),
    ]


def _may_help(error: CallFailed) -> bool:
    """Whether the same call may do better in a moment."""
    if not error.called:
        return False
    return error.status == 429 or isinstance(error, Unavailable | BadAnswer)


def problem_of(error: CallFailed) -> Problem:
    """What the caller is told about a provider's failure: whose fault, and what to do."""
    told = error.problem.get("error")
    message = told.get("message") if isinstance(told, dict) else None
    kind = told.get("type") if isinstance(told, dict) else None
    code = told.get("code") if isinstance(told, dict) else None
    if isinstance(error, DeadlineExceeded):
        return Problem(504, "deadline-passed", f"The model gave {error.reason}.")
    if "exceed_context_size_error" in (kind, code) or code == "context_length_exceeded":
        return Problem(
            400,
            "prompt-too-long",
            "The prompt has more tokens than the model reads. Send less context.",
            code="context_length_exceeded",
        )
    if error.status in (401, 403, 404):
        return Problem(
            502,
            "provider-misconfigured",
            f"The model's provider answered {error.status}: check this service's URL, key and "
            "model name.",
        )
    if error.status == 429 or isinstance(error, Unavailable):
        return Problem(
            503,
            "llm-unavailable",
            "The language model cannot be reached or is overloaded. Try again shortly.",
            headers={"retry-after": "2"},
        )
    if isinstance(error, Rejected):
        return Problem(400, "provider-rejected", f"The model refused it: {message or 'no reason'}")
    return Problem(502, "llm-failed", f"The language model failed: it {error.reason}.")
