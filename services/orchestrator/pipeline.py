"""The answer pipeline: which service is asked when, for how long, and what stands in for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from services.chassis import (
    BadAnswer,
    Breaker,
    CallFailed,
    Problem,
    ServerSentEvent,
    ServiceClient,
    Unavailable,
    current,
    get_logger,
)

from .domain import (
    Extract,
    RetryBudget,
    StageTiming,
    Trace,
    context_of,
    cut_sources,
    extractive_answer,
    fixed_text,
    index_text,
)
from .settings import Settings
from .stages import RunStage, Work, run_stage

T = TypeVar("T")

Event = tuple[str, dict[str, Any]]
"""Name and data of what happens while an answer is made: stage, sources, token, answer."""

_Events = AsyncGenerator[ServerSentEvent, None]
_Texts = AsyncGenerator[str, None]
_Begun = tuple[_Events, ServerSentEvent | None]


@dataclass(slots=True)
class Clients:
    """One client for each service that the pipeline asks."""

    preprocessing: ServiceClient
    hybrid: ServiceClient
    reranking: ServiceClient
    context: ServiceClient
    generation: ServiceClient
    post_processing: ServiceClient

    @classmethod
    def connect(cls, settings: Settings, breaker: Callable[[str], Breaker]) -> Clients:
        def client(service: str, url: str, timeout: float = 10.0) -> ServiceClient:
            return ServiceClient(service, url, timeout=timeout, breaker=breaker(service))

        return cls(
            preprocessing=client("query_preprocessing", settings.preprocessing_url),
            hybrid=client("hybrid_search", settings.hybrid_url),
            reranking=client("reranking", settings.reranking_url),
            context=client("context_aggregation", settings.context_url),
            generation=client("generation", settings.generation_url, settings.generation_timeout),
            post_processing=client("post_processing", settings.post_processing_url),
        )

    async def aclose(self) -> None:
        await asyncio.gather(*(getattr(self, name).aclose() for name in self.__slots__))


@dataclass(slots=True)
class Question:
    text: str
    language: str | None
    history: list[str]
    filter: dict[str, Any]
    top_k: int


@dataclass(slots=True)
class State:
    """What is known so far about one answer; each stage reads and adds to it."""

    question: Question
    trace: Trace = field(default_factory=Trace)
    language: str = "en"
    intent: str = "question"
    search_query: str = ""
    suggestion: str | None = None
    passages: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    context: str = ""
    text: str = ""
    kind: str = "generated"
    citations: list[dict[str, Any]] = field(default_factory=list)
    groundedness: float | None = None
    refused: bool = False
    decisions: list[dict[str, Any]] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    first_token_ms: float | None = None
    usage: dict[str, int] | None = None

    def lose(self, *services: str) -> None:
        self.degraded += [name for name in services if name not in self.degraded]


class Pipeline:
    def __init__(
        self,
        settings: Settings,
        clients: Clients,
        run: RunStage = run_stage,
        extract: Extract = extractive_answer,
    ) -> None:
        self.settings = settings
        self.clients = clients
        self._run = run
        self._best_sentences = extract
        self._plan = settings.plan
        self._budgets: dict[str, RetryBudget] = {}

    async def run(self, question: Question) -> AsyncGenerator[Event, None]:
        """Events of one answer, ending with `answer`. Raises Problem when there can be none."""
        state = State(question)
        yield _stage(await self._preprocess(state))
        if state.intent in ("small_talk", "harmful"):
            state.kind = "small_talk" if state.intent == "small_talk" else "blocked"
            state.text = fixed_text(state.kind, state.language)
            state.refused = state.kind == "blocked"
            yield _finish(state)
            return
        yield _stage(await self._search(state))
        if not state.passages:
            state.kind, state.refused = "refusal", True
            state.text = fixed_text("refusal", state.language)
            yield _finish(state)
            return
        yield _stage(await self._rerank(state))
        yield _stage(await self._build_context(state))
        yield "sources", {"sources": state.sources}
        async with aclosing(self._generate(state)) as pieces:
            async for event in pieces:
                yield event
        yield _stage(await self._check(state))
        yield _finish(state)

    def _left(self) -> float:
        """Seconds left for the stages; below zero when sending the answer needs them all."""
        return current().deadline.left - self.settings.answer_reserve

    def _place(self, name: str) -> int:
        return next(n for n, stage in enumerate(self._plan) if stage.name == name)

    async def _within(
        self, state: State, timing: StageTiming, work: Work, *, needed: bool = False
    ) -> Any:
        """The stage of `timing`, run within its time; None when it is lost, which is noted.

        A stage that is `needed` keeps nothing for those after it: the answer can do without them.
        """
        at = self._place(timing.stage)
        later = () if needed else self._plan[at + 1 :]
        lost: dict[str, str] = {}
        found = await self._run(work, self._plan[at], later, self._left(), lost)
        if found is None:
            self._lost(state, timing, lost)
        return found

    async def _call(
        self, client: ServiceClient, path: str, body: dict[str, Any], seconds: float
    ) -> Any:
        # An overloaded service asked to be left alone; a breaker that is open means it.
        return await self._asked(
            client.service,
            lambda left: client.post(path, body, timeout=left),
            seconds,
            lambda error: error.called and error.status != 503,
        )

    async def _asked(
        self,
        service: str,
        ask: Callable[[float], Awaitable[T]],
        seconds: float,
        may_pass: Callable[[CallFailed], bool],
    ) -> T:
        """One call, and one more if the service failed quickly in a way that `may_pass` and the
        retry budget allows.

        Both together take at most `seconds`.
        """
        budget = self._budgets.setdefault(service, RetryBudget(self.settings.retry_ratio))
        budget.record_call()
        end = time.monotonic() + seconds
        try:
            return await ask(seconds)
        except (Unavailable, BadAnswer) as error:
            left = end - time.monotonic()
            if not may_pass(error) or left <= 0 or not budget.take():
                raise
            return await ask(left)

    def _lost(self, state: State, timing: StageTiming, lost: dict[str, str]) -> None:
        timing.status = "degraded"
        state.lose(*lost)
        get_logger().warning("stage_failed", stage=timing.stage, reason=lost.get(timing.stage))

    async def _preprocess(self, state: State) -> StageTiming:
        question = state.question
        state.search_query = question.text
        state.language = question.language or "en"
        body = {"query": question.text, "history": question.history}
        client = self.clients.preprocessing
        with state.trace.stage("query_preprocessing") as timing:
            found = await self._within(
                state, timing, lambda seconds: self._call(client, "/v1/preprocess", body, seconds)
            )
            if found is not None:
                state.search_query = found["search_query"]
                state.language = question.language or found["language"]
                state.intent = found["intent"]
                state.suggestion = found["suggestion"]
        return timing

    async def _search(self, state: State) -> StageTiming:
        body = {
            "query": state.search_query,
            "language": state.language,
            "top_k": self.settings.candidates,
            "filter": state.question.filter,
        }
        client = self.clients.hybrid
        in_time = self._left() >= self._plan[self._place("hybrid_search")].least
        with state.trace.stage("hybrid_search") as timing:
            found = await self._within(
                state,
                timing,
                lambda seconds: self._call(client, "/v1/search", body, seconds),
                needed=True,
            )
            if found is None:
                raise _no_search(in_time)
            state.passages = [hit["passage"] | {"score": hit["score"]} for hit in found["hits"]]
            if found["degraded"]:
                timing.status = "degraded"
                state.lose(*found["degraded"])
        return timing

    async def _rerank(self, state: State) -> StageTiming:
        body = {
            "query": state.search_query,
            "documents": [index_text(passage) for passage in state.passages],
        }
        client = self.clients.reranking
        with state.trace.stage("reranking") as timing:
            found = await self._within(
                state, timing, lambda seconds: self._call(client, "/v1/rerank", body, seconds)
            )
            if found is not None:
                state.passages = [
                    state.passages[item["index"]] | {"score": item["relevance_score"]}
                    for item in found["results"]
                ]
                if not found["meta"]["complete"]:
                    timing.status = "degraded"
        return timing

    async def _build_context(self, state: State) -> StageTiming:
        passages = state.passages[: state.question.top_k]
        body = {
            "query": state.search_query,
            "language": state.language,
            "passages": passages,
            "max_tokens": self.settings.context_tokens,
        }
        client = self.clients.context
        with state.trace.stage("context_aggregation") as timing:
            found = await self._within(
                state, timing, lambda seconds: self._call(client, "/v1/context", body, seconds)
            )
            if found is None:
                # About three characters a token in both languages, on the safe side.
                state.sources = cut_sources(passages, self.settings.context_tokens * 3)
                state.context = context_of(state.sources)
            else:
                state.sources, state.context = found["sources"], found["context"]
        return timing

    async def _generate(self, state: State) -> AsyncGenerator[Event, None]:
        body = {
            "prompt": {
                "template": "answer",
                "language": state.language,
                "variables": {"question": state.search_query, "context": state.context},
            },
            "max_tokens": self.settings.answer_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with state.trace.stage("generation") as timing:
            begun = await self._within(
                state, timing, lambda seconds: self._begin_stream(body, seconds)
            )
            if begun is None:
                self._extract(state)
            else:
                events, first = begun
                try:
                    async with aclosing(_texts(events, first, state)) as texts:
                        async for text in texts:
                            yield "token", {"text": text}
                except CallFailed as error:
                    self._lost(state, timing, {error.service: error.reason})
                    self._extract(state)
        yield _stage(timing)

    async def _begin_stream(self, body: dict[str, Any], seconds: float) -> _Begun:
        """The model's events and the first of them: whoever is gone is known by then."""
        client = self.clients.generation

        async def begin(left: float) -> _Begun:
            events = client.stream("/v1/chat/completions", body, timeout=left)
            return events, await anext(events, None)

        # Only where no answer came at all: before it gives one, generation has tried again itself.
        return await self._asked(
            client.service, begin, seconds, lambda error: error.called and error.status is None
        )

    def _extract(self, state: State) -> None:
        """The best sentences with their citations, in place of the model's text."""
        state.kind = "extractive"
        state.text = self._best_sentences(state.sources)
        state.citations = [
            _citation(source) for source in state.sources if f"[{source['number']}]" in state.text
        ]
        state.groundedness = None

    async def _check(self, state: State) -> StageTiming:
        body = {
            "question": state.search_query,
            "answer": state.text,
            "sources": state.sources,
            "language": state.language,
            "mode": state.kind,
        }
        client = self.clients.post_processing
        with state.trace.stage("post_processing") as timing:
            found = await self._within(
                state, timing, lambda seconds: self._call(client, "/v1/postprocess", body, seconds)
            )
            if found is None:
                # The model's text is never shown unchecked.
                self._extract(state)
                return timing
            state.text = found["answer"]
            state.citations = found["citations"]
            state.groundedness = found["groundedness"]
            state.decisions = found["decisions"]
            state.refused = found["refused"]
            if state.refused:
                state.kind = "refusal"
        return timing


def _no_search(in_time: bool) -> Problem:
    """Without passages there is nothing to answer from. `in_time`: the search was begun."""
    if not in_time:
        return Problem(
            504, "deadline-passed", "The time that was left is too short for a search. Allow more."
        )
    return Problem(
        503,
        "search-unavailable",
        "Search is unavailable, so there is nothing to answer from. Try again shortly.",
        headers={"retry-after": "1"},
    )


async def _texts(events: _Events, first: ServerSentEvent | None, state: State) -> _Texts:
    """The pieces of a model's answer as they come; `state` keeps them, and when the first came.

    Raises CallFailed when the model breaks off or says nothing.
    """
    async with aclosing(events):
        event = first
        while event is not None and event.data != "[DONE]":
            text = _delta(event.json(), state)
            if text:
                if state.first_token_ms is None:
                    state.first_token_ms = state.trace.now_ms()
                state.text += text
                yield text
            event = await anext(events, None)
    if not state.text.strip():
        raise BadAnswer("generation", "answered without any text")


def _stage(timing: StageTiming) -> Event:
    return "stage", asdict(timing)


def _citation(source: dict[str, Any]) -> dict[str, Any]:
    return {name: source[name] for name in ("number", "id", "document", "title", "heading", "text")}


def _delta(chunk: Any, state: State) -> str:
    """The text of one chunk of an OpenAI stream; its usage, which comes last, goes to `state`."""
    if not isinstance(chunk, dict):
        raise BadAnswer("generation", "sent a chunk that is not an object")
    if "error" in chunk:
        error = chunk["error"]
        reason = error.get("message", error) if isinstance(error, dict) else error
        raise BadAnswer("generation", str(reason))
    if usage := chunk.get("usage"):
        state.usage = {name: usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")}
    choices = chunk.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


def _finish(state: State) -> Event:
    trace = state.trace
    return "answer", {
        "question": state.question.text,
        "language": state.language,
        "answer": state.text,
        "kind": state.kind,
        "citations": state.citations,
        "sources": state.sources,
        "groundedness": state.groundedness,
        "refused": state.refused,
        "degraded": state.degraded,
        "suggestion": state.suggestion,
        "intent": state.intent,
        "decisions": state.decisions,
        "timings": [asdict(timing) for timing in trace.timings],
        "first_token_ms": state.first_token_ms,
        "usage": state.usage,
    }
