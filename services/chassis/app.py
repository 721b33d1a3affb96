"""`create_service`: a FastAPI app with everything a service needs but its domain."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from .logs import get_logger
from .memory import release_free_memory
from .metrics import HttpMetrics
from .middleware import ServiceMiddleware
from .problems import Problem, install_problem_handlers
from .readiness import Readiness
from .settings import ServiceSettings

Resources = Callable[[FastAPI], AbstractAsyncContextManager[None]]
"""An async context manager that fills `app.state` (models, stores, clients) and frees it after.

It runs in the background while the service already answers `/healthz`. If it raises, the
service stays alive and `/readyz` says why: a service that lost its model never looks ready.
"""


class ProblemDocument(BaseModel):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


_PROBLEM_RESPONSES: dict[int | str, dict[str, object]] = {
    "4XX": {"description": "The request was not accepted.", "model": ProblemDocument},
    "5XX": {"description": "The service could not do its job.", "model": ProblemDocument},
}


def create_service(
    settings: ServiceSettings,
    *,
    title: str,
    description: str,
    router: APIRouter,
    resources: Resources | None = None,
    version: str = "1.0.0",
) -> FastAPI:
    """Build the app of one service: `router` under `/v1`, health, metrics, errors and limits.

    After it, `app.state.settings`, `app.state.readiness` and `app.state.metrics` are there; the
    rest of `app.state` is what `resources` puts in.
    """
    readiness, metrics = Readiness(), HttpMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(_hold(resources, app, readiness, stop), name="resources")
        try:
            yield
        finally:
            readiness.set_missing("shutting down")
            stop.set()
            if not readiness.was_ready:  # a model still loading is not worth waiting for
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    app = FastAPI(
        title=title,
        description=description,
        version=version,
        lifespan=lifespan,
        redoc_url=None,
        responses=_PROBLEM_RESPONSES,
    )
    app.state.settings = settings
    app.state.readiness = readiness
    app.state.metrics = metrics
    install_problem_handlers(app)
    app.add_middleware(
        ServiceMiddleware,
        readiness=readiness,
        metrics=metrics,
        max_concurrency=settings.max_concurrency,
        max_body_bytes=settings.max_body_bytes,
        default_deadline=settings.default_deadline,
    )
    app.include_router(_health(readiness, metrics))
    app.include_router(router, prefix="/v1")
    return app


async def _hold(
    resources: Resources | None, app: FastAPI, readiness: Readiness, stop: asyncio.Event
) -> None:
    """Enter the resources, report ready, leave them when told: all in one task."""
    log = get_logger()
    try:
        if resources is None:
            readiness.set_ready()
            await stop.wait()
            return
        async with resources(app):
            # What was built at start-up lives as long as the process: keep it out of every
            # later garbage collection, which shows in the tail latency.
            gc.collect()
            gc.freeze()
            release_free_memory()
            readiness.set_ready()
            log.info("ready")
            await stop.wait()
    except Exception as error:
        readiness.set_missing(f"start-up failed: {error}")
        log.error("start_up_failed", exc_info=error)
        await stop.wait()


def _health(readiness: Readiness, metrics: HttpMetrics) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="The process lives", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok"

    @router.get("/readyz", summary="The service can do its job", response_class=PlainTextResponse)
    async def readyz() -> str:
        if readiness.reason is not None:
            raise Problem(503, "not-ready", readiness.reason, headers={"retry-after": "1"})
        return "ready"

    @router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def read_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    return router
