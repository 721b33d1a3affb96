"""The HTTP face of post_processing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import Counter, Histogram
from starlette.responses import Response

from services.chassis import create_service

from . import domain
from .domain import Cite, Steps, settle_citations
from .grounding import Share, Source, share_in_two_sentences
from .personal_data import IsCpf
from .personal_data import is_cpf as is_valid_cpf
from .schemas import PostprocessRequest, PostprocessResponse
from .settings import Settings


def create_app(
    settings: Settings,
    *,
    cite: Cite = settle_citations,
    share: Share = share_in_two_sentences,
    is_cpf: IsCpf = is_valid_cpf,
) -> FastAPI:
    """The app. `cite`, `share` and `is_cpf` are three steps of `postprocess`."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        registry = app.state.metrics.registry
        app.state.decisions = Counter(
            "post_processing_decisions",
            "What the checks did.",
            ("check", "action"),
            registry=registry,
        )
        app.state.groundedness = Histogram(
            "post_processing_groundedness",
            "Share of an answer that its sources support.",
            buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0),
            registry=registry,
        )
        domain.warm_up()
        yield

    return create_service(
        settings,
        title="post_processing",
        description="Checks an answer against its sources, makes it safe, and says what it did.",
        router=_router(settings, Steps(cite, share, is_cpf)),
        resources=resources,
    )


def _router(settings: Settings, steps: Steps) -> APIRouter:
    router = APIRouter()
    policy = settings.policy

    @router.post("/postprocess", response_model=PostprocessResponse, summary="Check an answer")
    async def postprocess(body: PostprocessRequest, request: Request) -> Response:
        sources = [
            Source(
                source.number,
                source.id,
                source.document,
                source.title,
                source.heading,
                source.language,
                source.text,
            )
            for source in body.sources
        ]
        result = domain.postprocess(
            body.question,
            body.answer,
            sources,
            language=body.language,
            mode=body.mode,
            policy=policy,
            steps=steps,
        )
        state = request.app.state
        state.groundedness.observe(result.groundedness)
        for decision in result.decisions:
            state.decisions.labels(decision.check, decision.action).inc()
        return Response(orjson.dumps(result), media_type="application/json")

    return router
