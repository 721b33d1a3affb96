"""The HTTP face of context_aggregation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

import orjson
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import Counter, Histogram
from starlette.responses import Response

from services.chassis import Problem, create_service, current

from .domain import Context, FindDuplicates, Fit, build_context, find_duplicates, fit_budget
from .schemas import ContextRequest, ContextResponse
from .settings import Settings
from .tokenizer import load_tokenizer


def create_app(
    settings: Settings,
    *,
    duplicates: FindDuplicates = find_duplicates,
    fit: Fit = fit_budget,
) -> FastAPI:
    """The app. `duplicates` and `fit` are two steps of `build_context`."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        # One thread: the work is Python's own, and a second would only compete for its lock.
        with ThreadPoolExecutor(1, thread_name_prefix="context") as thread:
            loop = asyncio.get_running_loop()
            app.state.thread = thread
            app.state.tokenizer = await loop.run_in_executor(
                thread, load_tokenizer, settings.tokenizer_path
            )
            yield

    app = create_service(
        settings,
        title="context_aggregation",
        description="Turns ranked passages into a numbered context that fits a token budget.",
        router=_router(settings, duplicates, fit),
        resources=resources,
    )
    registry = app.state.metrics.registry
    app.state.tokens = Histogram(
        "context_tokens",
        "Length of the contexts built, in tokens.",
        buckets=(0, 64, 128, 192, 256, 384, 512, 1024, 2048, 4096),
        registry=registry,
    )
    app.state.dropped = Counter(
        "context_passages_dropped", "Passages left out of a context.", registry=registry
    )
    return app


def _router(settings: Settings, duplicates: FindDuplicates, fit: Fit) -> APIRouter:
    router = APIRouter()
    defaults = settings.options()

    @router.post(
        "/context", response_model=ContextResponse, summary="Build the context for a prompt"
    )
    async def context(body: ContextRequest, request: Request) -> Response:
        state = request.app.state
        options = defaults
        if body.max_passages is not None:
            options = replace(defaults, max_passages=body.max_passages)
        budget = body.max_tokens or settings.max_tokens
        passages = [passage.model_dump() for passage in body.passages]
        deadline = current().deadline

        def work() -> Context:
            if deadline.passed:
                raise Problem(504, "deadline-passed", "The deadline passed before work began.")
            return build_context(
                body.query,
                body.language,
                passages,
                budget,
                state.tokenizer,
                options,
                duplicates=duplicates,
                fit=fit,
            )

        built = await asyncio.get_running_loop().run_in_executor(state.thread, work)
        state.tokens.observe(built.tokens)
        state.dropped.inc(len(built.dropped))
        return Response(orjson.dumps(asdict(built)), media_type="application/json")

    return router
