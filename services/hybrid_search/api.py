"""The HTTP face of hybrid_search: ask every list at once, fuse what came back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import orjson
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from services.chassis import (
    CallFailed,
    Problem,
    Rejected,
    ServiceClient,
    create_service,
    current,
    get_logger,
)

from .domain import Fused, ask_together, reciprocal_rank_fusion
from .schemas import SearchRequest, SearchResponse
from .settings import Settings

# Which service answers for a list, and what is added to the question asked of it.
_DENSE = {"dense": {"using": "bilingual"}, "dense_english": {"using": "english"}}

Hits = list[dict[str, Any]]


class Fuse(Protocol):
    """As `reciprocal_rank_fusion`: ranked lists of (id, score) to one list, best first."""

    def __call__(
        self,
        lists: Mapping[str, Sequence[tuple[str, float]]],
        *,
        weights: Mapping[str, float] | None = None,
        k: float = 60.0,
    ) -> list[Fused]: ...


AskTogether = Callable[
    [Callable[[str], Awaitable[Hits]], Sequence[str]], Awaitable[dict[str, Hits | BaseException]]
]
"""As `ask_together`: each name's answer, or the exception that kept it from answering."""


def create_app(
    settings: Settings,
    *,
    fuse: Fuse = reciprocal_rank_fusion,
    together: AskTogether = ask_together,
) -> FastAPI:
    """The service around its two cores: how lists are fused, and how they are asked at once."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        app.state.dense = ServiceClient(
            "dense_retrieval", settings.dense_url, timeout=settings.list_timeout
        )
        app.state.sparse = ServiceClient(
            "sparse_retrieval", settings.sparse_url, timeout=settings.list_timeout
        )
        yield
        await app.state.dense.aclose()
        await app.state.sparse.aclose()

    return create_service(
        settings,
        title="hybrid_search",
        description="Asks dense and sparse retrieval at once and fuses their lists (RRF).",
        router=_router(settings, fuse, together),
        resources=resources,
    )


def _router(settings: Settings, fuse: Fuse, together: AskTogether) -> APIRouter:
    router = APIRouter()

    @router.post("/search", response_model=SearchResponse, summary="Search by meaning and keyword")
    async def search(body: SearchRequest, request: Request) -> Response:
        weights = _weights(body, settings)
        names = [name for name in body.lists or weights if weights.get(name, 0) > 0]
        if not names:
            raise Problem(
                422, "no-list", "lists: no list has a weight above zero; name one or give weights."
            )
        timings: dict[str, float] = {}
        # One list that hangs must not take the time in which the others can still be of use.
        wait = min(settings.list_timeout, current().deadline.left * settings.list_share)

        async def ask(name: str) -> Hits:
            started = time.perf_counter()
            try:
                return await _ask(request.app, name, body, wait)
            finally:
                timings[name] = round((time.perf_counter() - started) * 1000, 2)

        answers = await together(ask, names)
        found = {name: hits for name, hits in answers.items() if isinstance(hits, list)}
        degraded = sorted(
            {_gone(name, error) for name, error in answers.items() if not isinstance(error, list)}
        )
        if not found:
            raise Problem(
                503,
                "search-unavailable",
                "Search is unavailable: neither dense nor sparse retrieval answered.",
                headers={"retry-after": "1"},
            )
        fused = fuse(
            {name: [(hit["id"], hit["score"]) for hit in hits] for name, hits in found.items()},
            weights=weights,
            k=settings.rrf_k,
        )
        passages = {hit["id"]: hit["passage"] for hits in found.values() for hit in hits}
        return Response(
            orjson.dumps(
                {
                    "hits": [
                        {
                            "id": item.id,
                            "score": item.score,
                            "passage": passages[item.id],
                            "provenance": item.provenance,
                        }
                        for item in fused[: body.top_k]
                    ],
                    "degraded": degraded,
                    "timings_ms": {name: timings[name] for name in names},
                }
            ),
            media_type="application/json",
        )

    return router


def _weights(body: SearchRequest, settings: Settings) -> dict[str, float]:
    if body.weights is not None:
        return body.weights
    by_language = settings.weights
    return by_language.get(body.language or "other") or by_language["other"]


async def _ask(app: FastAPI, name: str, body: SearchRequest, seconds: float) -> Hits:
    """One list's hits, within `seconds`. Raises a `CallFailed`."""
    question: dict[str, Any] = {
        "query": body.query,
        "top_k": body.candidates,
        "filter": body.filter.model_dump(exclude_none=True),
    }
    client: ServiceClient
    if name in _DENSE:
        client, question = app.state.dense, question | _DENSE[name]
    else:
        client, question = app.state.sparse, question | {"language": body.language}
    hits: Hits = (await client.post("/v1/search", question, timeout=seconds))["hits"]
    return hits


def _gone(name: str, error: BaseException) -> str:
    """The service that kept a list from answering. Raises what is not a service's failure."""
    if isinstance(error, Rejected):
        raise Problem(
            error.status or 422, "list-refused", f"{name}: {error.reason}", service=error.service
        ) from error
    if not isinstance(error, CallFailed):
        raise error
    get_logger().warning("list_failed", list=name, reason=error.reason)
    # Dense retrieval names the service behind it when that one is the culprit.
    return str(error.problem.get("service", error.service))
