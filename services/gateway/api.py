"""The app of gateway: the routes, the edge around them, the page and the resources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from services.chassis import ServiceClient, create_service, get_logger
from services.chassis.events import Outbox

from .domain import take_token
from .edge import BodyTooSlow, Edge, Shield
from .keys import HolderOf, KeyRing, holder_of
from .quotas import Quotas, Take
from .routes import build_router
from .settings import Settings
from .upstream import CallerLeft
from .web import add_pages, docs_policy


def create_app(
    settings: Settings, *, take: Take = take_token, holder: HolderOf = holder_of
) -> FastAPI:
    """The service around two of its cores: how a rate is counted, and whose key it is."""
    keys = KeyRing(settings.api_keys, settings.api_keys_file, holder=holder)
    quotas = Quotas(settings.rate_limit, settings.daily_quota, settings.limits_storage, take)

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        _say_who_may_call(settings, keys)
        state = app.state
        longest = settings.default_deadline
        state.orchestrator = ServiceClient(
            "orchestrator", settings.orchestrator_url, timeout=longest
        )
        state.hybrid = ServiceClient(
            "hybrid_search", settings.hybrid_url, timeout=settings.search_timeout
        )
        state.reranking = settings.reranking_url and ServiceClient(
            "reranking", settings.reranking_url, timeout=settings.reranking_timeout
        )
        state.ingestion = ServiceClient("ingestion", settings.ingestion_url, timeout=longest)
        state.feedback = ServiceClient(
            "feedback", settings.feedback_url, timeout=settings.feedback_timeout
        )
        state.outbox = Outbox(
            settings.home / "outbox.sqlite",
            settings.broker_url,
            "gateway",
            registry=state.metrics.registry,
        )
        state.outbox.start()
        yield
        await state.outbox.aclose()
        for name in ("orchestrator", "hybrid", "reranking", "ingestion", "feedback"):
            if client := getattr(state, name):
                await client.aclose()

    app = create_service(
        settings,
        title="gateway",
        description="The one way in: answers, search, documents, feedback and the web page.",
        router=build_router(settings),
        resources=resources,
    )
    add_pages(app)
    app.add_exception_handler(BodyTooSlow, BodyTooSlow.answer)
    app.add_exception_handler(CallerLeft, CallerLeft.answer)
    # Inside the chassis layer, so that refusals are logged, counted and carry a request id.
    app.user_middleware.append(
        Middleware(
            Edge,
            settings=settings,
            keys=keys,
            quotas=quotas,
            registry=app.state.metrics.registry,
            openapi=app.openapi,
        )
    )
    app.add_middleware(Shield, docs_csp=docs_policy(app))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key", "x-api-key"],
            expose_headers=["ratelimit", "ratelimit-policy", "retry-after", "x-request-id"],
            max_age=600,
        )
    return app


def _say_who_may_call(settings: Settings, keys: KeyRing) -> None:
    log = get_logger()
    if keys.configured:
        log.info("api_keys_needed", keys=len(keys))
    elif settings.anonymous == "loopback":
        log.warning("open_to_this_machine_only", reason="no API key is configured")
    else:
        log.warning("open_to_everyone", reason="no API key is configured, GATEWAY_ANONYMOUS=anyone")
