"""From a request to the pieces of its answer: cache, places, retries, other models, counting."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.chassis import (
    CallFailed,
    DeadlineExceeded,
    Problem,
    Rejected,
    Unavailable,
    current,
    get_logger,
)

from .cache import Answer, MakeKey, PromptCache, cache_key
from .metrics import GenerationMetrics
from .providers import Provider
from .reading import Piece
from .routing import Failure, NextStep, next_step
from .settings import Settings


@dataclass(slots=True)
class Served:
    """One model name that can be asked for, and how many answers it is busy with."""

    name: str
    provider: Provider
    kind: str
    concurrency: int
    active: int = 0


class NoPlace(Unavailable):
    """Every place at a model is taken; it was not asked."""


class Completer:
    """`make_key` and `next_step` are the decisions of `cache` and `routing`."""

    def __init__(
        self,
        settings: Settings,
        served: dict[str, Served],
        metrics: GenerationMetrics,
        make_key: MakeKey = cache_key,
        next_step: NextStep = next_step,
    ) -> None:
        self.settings = settings
        self.served = served
        self.metrics = metrics
        self.cache = PromptCache(settings.cache_bytes)
        self._make_key = make_key
        self._next_step = next_step

    async def pieces(
        self, served: Served, request: dict[str, Any], about: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Piece, None]:
        """The answer's pieces. Raises Problem; a failure after the first piece is one as well.

        `about` is what the caller said beside the `request` that goes to the provider.
        """
        asked = {**(about or {}), **request}
        key = self._make_key(asked | {"model": served.name})
        known = self.cache.get(key)
        if key is not None:
            self.metrics.cache.labels("hit" if known else "miss").inc()
        if known is not None:
            for piece in _replay(known):
                yield piece
            return
        async with aclosing(self._generate(served, request)) as stream:
            collected = _Collector()
            async for piece in stream:
                collected.add(piece)
                yield piece
        if answer := collected.answer():
            # Under the name of the model that wrote it: when the one that was asked for is back,
            # it is asked again.
            self.cache.put(self._make_key(asked | {"model": collected.route}), answer)

    async def _generate(
        self, served: Served, request: dict[str, Any]
    ) -> AsyncGenerator[Piece, None]:
        """Pieces from the model, or from one that stands in; `next_step` decides after a failure.

        Raises Problem.
        """
        started = time.perf_counter()
        others = [self.served[name] for name in self.settings.fallbacks.get(served.name, ())]
        one, attempt = served, 0
        while True:
            attempt += 1
            begun = False
            try:
                async with aclosing(self._call(one, request)) as pieces:
                    async for piece in pieces:
                        if piece.text and not begun:
                            begun = True
                            self.metrics.first_token.labels(one.name).observe(
                                time.perf_counter() - started
                            )
                        yield piece
                return
            except CallFailed as error:
                failed = error
            when = "after" if begun else "before"
            self.metrics.failures.labels(one.name, when).inc()
            left = current().deadline.left
            step = self._next_step(
                Failure(
                    status=504 if isinstance(failed, DeadlineExceeded) else failed.status,
                    called=failed.called,
                    begun=begun,
                    attempt=attempt,
                    retries=self.settings.retries,
                    others=len(others),
                    left=left,
                    retry_after=failed.retry_after,
                )
            )
            get_logger().warning(
                "provider_failed", route=one.name, when=when, reason=failed.reason, then=step.action
            )
            # The first two hold whatever was decided: the caller has seen text, or is gone.
            if begun or left <= 0 or step.action == "give up":
                raise problem_of(failed) from failed
            if step.action == "elsewhere":
                if not others:
                    raise problem_of(failed) from failed
                one, attempt = others.pop(0), 0
            else:
                self.metrics.retries.labels(one.name).inc()
                await asyncio.sleep(step.wait)

    async def _call(self, served: Served, request: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """One call of one model, which takes one of its places. Raises CallFailed."""
        if served.active >= served.concurrency:
            reason = f"all {served.concurrency} places at the model {served.name} are taken"
            raise NoPlace(served.name, reason, called=False)
        served.active += 1
        try:
            stream = served.provider.stream(request, self.settings.timeout)
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    if piece.usage:
                        self.metrics.on_usage(served.name, piece.usage)
                    piece.route = served.name
                    yield piece
        finally:
            served.active -= 1


class _Collector:
    """Gathers pieces into the answer that the cache keeps."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._model = ""
        self.route = ""

    def add(self, piece: Piece) -> None:
        if piece.text:
            self._parts.append(piece.text)
        self._finish_reason = piece.finish_reason or self._finish_reason
        self._usage = piece.usage or self._usage
        self._model = piece.model or self._model
        self.route = piece.route

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


def problem_of(error: CallFailed) -> Problem:
    """What the caller is told about a provider's failure: whose fault, and what to do."""
    told = error.problem.get("error")
    message = told.get("message") if isinstance(told, dict) else None
    kind = told.get("type") if isinstance(told, dict) else None
    code = told.get("code") if isinstance(told, dict) else None
    pause = {"retry-after": str(math.ceil(error.retry_after or 2))}
    if isinstance(error, NoPlace):
        return Problem(
            503,
            "overloaded",
            f"{error.reason.capitalize()}. Try again after the pause given.",
            headers=pause,
        )
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
            headers=pause,
        )
    if isinstance(error, Rejected):
        return Problem(400, "provider-rejected", f"The model refused it: {message or 'no reason'}")
    return Problem(502, "llm-failed", f"The language model failed ({error.reason}).")
