"""The HTTP face of sparse_retrieval."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Header, Query, Request
from prometheus_client import Gauge, Histogram
from starlette.responses import Response

from services.chassis import Problem, ServiceSettings, create_service, current

from .bm25 import Frequency, Idf, Scorer, inverse_document_frequency, term_frequency
from .domain import Filter, IndexFull, IndexLocked, KeywordIndex
from .schemas import (
    DeleteResponse,
    Id,
    PutRequest,
    PutResponse,
    SearchRequest,
    SearchResponse,
    StatsResponse,
    VocabularyResponse,
)
from .settings import Settings

T = TypeVar("T")


class _Threads:
    """Where index work runs: tantivy leaves Python's lock, so the event loop goes on meanwhile."""

    def __init__(self) -> None:
        self.reads = ThreadPoolExecutor(2, thread_name_prefix="search")
        # Several, because writes that wait together are committed together.
        self.writes = ThreadPoolExecutor(8, thread_name_prefix="write")

    async def run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        deadline = current().deadline

        def timely() -> T:
            if deadline.passed:
                raise Problem(504, "deadline-passed", "The time ran out before the work began.")
            return work()

        try:
            return await asyncio.get_running_loop().run_in_executor(pool, timely)
        except IndexFull as error:
            raise Problem(
                503,
                "disk-full",
                f"Nothing of this request was stored: {error}. Free some space and try again.",
                headers={"retry-after": "60"},
            ) from error

    def close(self) -> None:
        self.reads.shutdown()
        self.writes.shutdown()


def create_app(
    settings: Settings, *, idf: Idf | None = None, frequency: Frequency | None = None
) -> FastAPI:
    """tantivy scores, unless `idf` or `frequency` is given: then these do, as `bm25.Scorer`."""
    scorer = None
    if idf is not None or frequency is not None:
        scorer = Scorer(idf or inverse_document_frequency, frequency or term_frequency)

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        index = await _open(app, settings, scorer)
        app.state.index, app.state.threads = index, _Threads()
        registry = app.state.metrics.registry
        app.state.search_seconds = Histogram(
            "sparse_search_seconds",
            "Time in the keyword index for one search, in seconds.",
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5),
            registry=registry,
        )
        passages = Gauge("sparse_passages", "Passages in the index.", registry=registry)
        passages.set_function(lambda: len(index))
        yield
        app.state.threads.close()
        await asyncio.to_thread(index.close)

    return create_service(
        settings,
        title="sparse_retrieval",
        description="The best passages by BM25, with stemming for English and Portuguese.",
        router=_router(settings),
        resources=resources,
    )


async def _open(app: FastAPI, settings: Settings, scorer: Scorer | None) -> KeywordIndex:
    """Open the index; while another process has its folder, say so and try again."""
    if settings.in_memory:
        return KeywordIndex(scorer=scorer)
    readiness = app.state.readiness
    while True:
        try:
            return await asyncio.to_thread(
                KeywordIndex,
                settings.home,
                min_free_bytes=settings.min_free_bytes,
                scorer=scorer,
            )
        except IndexLocked as error:
            if readiness.reason == "shutting down":
                raise
            readiness.set_missing(str(error))
        await asyncio.sleep(1.0)


def _json(body: object, **headers: str) -> Response:
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


def _router(settings: ServiceSettings) -> APIRouter:
    router = APIRouter()

    @router.put("/passages", response_model=PutResponse, summary="Store passages")
    async def put(body: PutRequest, request: Request) -> Response:
        index, threads = request.app.state.index, request.app.state.threads
        passages = [passage.model_dump() for passage in body.passages]
        return _json({"stored": await threads.run(threads.writes, lambda: index.put(passages))})

    @router.delete("/passages", response_model=DeleteResponse, summary="Delete passages")
    async def delete(
        request: Request,
        document: Annotated[
            list[Id], Query(max_length=1000, description="all passages of these documents")
        ] = [],  # noqa: B006 - FastAPI copies defaults
        id: Annotated[list[Id], Query(max_length=1000, description="these passages")] = [],  # noqa: B006
    ) -> Response:
        if not document and not id:
            raise Problem(
                422,
                "invalid-field",
                "document: name at least one document or id to delete.",
                errors=[{"field": "document", "problem": "no document and no id was given"}],
            )
        index, threads = request.app.state.index, request.app.state.threads
        deleted = await threads.run(
            threads.writes, lambda: index.delete(documents=document, ids=id)
        )
        return _json({"deleted": deleted})

    @router.post("/search", response_model=SearchResponse, summary="Search by keyword (BM25)")
    async def search(body: SearchRequest, request: Request) -> Response:
        state = request.app.state
        where = Filter(**body.filter.model_dump())

        def work() -> bytes:
            started = time.perf_counter()
            hits = state.index.search(
                body.query, language=body.language, top_k=body.top_k, where=where
            )
            state.search_seconds.observe(time.perf_counter() - started)
            return orjson.dumps(
                {
                    "hits": [
                        {"id": hit.id, "score": hit.score, "passage": orjson.Fragment(hit.raw)}
                        for hit in hits
                    ]
                }
            )

        return Response(
            await state.threads.run(state.threads.reads, work), media_type="application/json"
        )

    @router.get(
        "/vocabulary",
        response_model=VocabularyResponse,
        responses={304: {"description": "Not changed since the version in `If-None-Match`."}},
        summary="All words with their document frequencies",
    )
    async def vocabulary(
        request: Request,
        if_none_match: Annotated[
            str | None, Header(max_length=2000, description="ETag of the copy the caller has")
        ] = None,
    ) -> Response:
        index, threads = request.app.state.index, request.app.state.threads
        found = await threads.run(threads.reads, index.vocabulary)
        etag = f'"{found.version}"'
        if if_none_match is not None and _names(if_none_match, etag):
            return Response(status_code=304, headers={"etag": etag})
        return _json({"version": found.version, "terms": found.terms}, etag=etag)

    @router.get("/stats", response_model=StatsResponse, summary="What is stored")
    async def stats(request: Request) -> Response:
        index, threads = request.app.state.index, request.app.state.threads
        return _json(await threads.run(threads.reads, index.stats))

    return router


def _names(if_none_match: str, etag: str) -> bool:
    """RFC 9110, 13.1.2: `*`, or a list of tags, compared weakly."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
