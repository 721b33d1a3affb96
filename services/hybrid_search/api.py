"""The HTTP face of hybrid_search: ask every list at once, fuse what came back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from services.chassis import (
    CallFailed,
    Problem,
    Rejected,
    ServiceClient,
    create_service,
    get_logger,
)

from .domain import reciprocal_rank_fusion
from .schemas import SearchRequest, SearchResponse
from .settings import Settings

# Which service answers for a list, and what is added to the question asked of it.
_DENSE = {"dense": {"using": "bilingual"}, "dense_english": {"using": "english"}}


def create_app(settings: Settings) -> FastAPI:
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
        router=_router(settings),
        resources=resources,
    )


def _router(settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.post("/search", response_model=SearchResponse, summary="Search by meaning and keyword")
    async def search(body: SearchRequest, request: Request) -> Response:
        weights = _weights(body, settings)
        names = [name for name in body.lists or weights if weights.get(name, 0) > 0]
        if not names:
            raise Problem(
                422, "no-list", "lists: no list has a weight above zero; name one or give weights."
            )
        answers = await asyncio.gather(*(_ask(request.app, name, body) for name in names))
        found = {name: hits for name, hits, _ in answers if isinstance(hits, list)}
        degraded = sorted({gone for _, gone, _ in answers if isinstance(gone, str)})
        if not found:
            raise Problem(
                503,
                "search-unavailable",
                "Search is unavailable: neither dense nor sparse retrieval answered.",
                headers={"retry-after": "1"},
            )
        fused = reciprocal_rank_fusion(
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
                    "timings_ms": {name: round(seconds * 1000, 2) for name, _, seconds in answers},
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


async def _ask(
    app: FastAPI, name: str, body: SearchRequest
) -> tuple[str, list[dict[str, Any]] | str, float]:
    """One list's hits, or the service that kept it from answering, and the seconds it took."""
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
    started = time.perf_counter()
    answer: list[dict[str, Any]] | str
    try:
        answer = (await client.post("/v1/search", question))["hits"]
    except Rejected as error:
        raise Problem(
            error.status or 422, "list-refused", f"{name}: {error.reason}", service=error.service
        ) from error
    except CallFailed as error:
        get_logger().warning("list_failed", list=name, reason=error.reason)
        # Dense retrieval names the service behind it when that one is the culprit.
        answer = str(error.problem.get("service", error.service))
    return name, answer, time.perf_counter() - started
