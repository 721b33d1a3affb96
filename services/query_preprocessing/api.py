"""The HTTP face of query_preprocessing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial

import orjson
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import Counter, Gauge
from starlette.responses import Response

from services.chassis import Problem, ServiceClient, create_service, current

from .domain import Preprocessed, Preprocessor, Step
from .llm import LlmRewriter
from .refresh import VocabularyRefresher
from .rewrite import Standalone, standalone
from .schemas import PreprocessRequest, PreprocessResponse
from .settings import Settings
from .spelling import Choose, choose
from .text import Normalize, normalize
from .vocabulary import Vocabulary


def create_app(
    settings: Settings,
    *,
    normalize: Normalize = normalize,
    choose: Choose = choose,
    standalone: Standalone = standalone,
) -> FastAPI:
    """The app. `normalize`, `choose` and `standalone` are what `Preprocessor` takes."""
    processor = partial(Preprocessor, normalize=normalize, choose=choose, standalone=standalone)

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        loop, state = asyncio.get_running_loop(), app.state
        # One thread: an unknown word costs milliseconds that the event loop must not wait for.
        state.thread = ThreadPoolExecutor(1, thread_name_prefix="preprocess")
        state.preprocessor = await loop.run_in_executor(
            state.thread, partial(_warm, settings, processor)
        )
        client = ServiceClient("sparse_retrieval", settings.vocabulary_url)
        state.rewriter = LlmRewriter(
            settings.llm_url,
            settings.llm_model,
            settings.llm_api_key.get_secret_value(),
            settings.llm_timeout,
        )

        def use(vocabulary: Vocabulary) -> None:
            state.preprocessor.set_vocabulary(vocabulary)
            state.words.set(len(vocabulary))

        state.refresher = VocabularyRefresher(
            client, settings.home / "vocabulary.json", settings.vocabulary_refresh, use
        )
        await state.refresher.restore()
        task = asyncio.create_task(state.refresher.run(), name="vocabulary")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.aclose()
            await state.rewriter.aclose()
            state.thread.shutdown()

    app = create_service(
        settings,
        title="query_preprocessing",
        description="Turns what was typed into what is searched for, one reported step at a time.",
        router=_router(),
        resources=resources,
    )
    registry = app.state.metrics.registry
    app.state.intents = Counter(
        "preprocessing_intents", "Questions by intent and language.", ("intent", "language"),
        registry=registry,
    )  # fmt: skip
    app.state.words = Gauge(
        "preprocessing_vocabulary_words", "Words of the corpus that are known.", registry=registry
    )
    return app


def _warm(settings: Settings, processor: Callable[..., Preprocessor]) -> Preprocessor:
    """A preprocessor that has read its tables once, so that no question waits for the disk."""
    preprocessor = processor(settings.options(), cache=settings.home)
    for question in ("How does a servise start?", "Como um serviso começa?", "¿Cómo empieza?"):
        preprocessor.run(question)
    return preprocessor


def _router() -> APIRouter:
    router = APIRouter()

    @router.post("/preprocess", response_model=PreprocessResponse, summary="Understand a question")
    async def preprocess(body: PreprocessRequest, request: Request) -> Response:
        if not body.query.strip():
            raise Problem(422, "invalid-field", "query: it holds nothing but white space.",
                          errors=[{"field": "query", "problem": "it is blank"}])  # fmt: skip
        state, deadline = request.app.state, current().deadline
        preprocessor: Preprocessor = state.preprocessor
        steps: dict[str, bool] = {str(name): on for name, on in body.steps.items()}

        def work() -> Preprocessed:
            if deadline.passed:
                raise Problem(504, "deadline-passed", "The deadline passed before work began.")
            return preprocessor.run(body.query, body.history, steps)

        result = await asyncio.get_running_loop().run_in_executor(state.thread, work)
        asked = steps.get("llm_rewrite", "llm_rewrite" in preprocessor.options.steps)
        result.steps.append(await _llm_rewrite(state.rewriter, result, body.history, asked))
        state.intents.labels(result.intent, result.language_detected).inc()
        return Response(orjson.dumps(asdict(result)), media_type="application/json")

    return router


async def _llm_rewrite(
    rewriter: LlmRewriter, result: Preprocessed, history: list[str], asked: bool
) -> Step:
    """The last step: the only one that waits for another program."""
    if not asked:
        return Step("llm_rewrite", False, "switched off", 0.0)
    if result.intent in ("small_talk", "harmful"):
        return Step("llm_rewrite", False, "nothing to search for", 0.0)
    started = time.perf_counter()
    found, detail = await rewriter.rewrite(result.search_query, history, result.language)
    if found is not None:
        result.search_query = found
    elapsed = (time.perf_counter() - started) * 1000
    return Step("llm_rewrite", found is not None, detail, round(elapsed, 3))
