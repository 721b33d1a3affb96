"""The HTTP face of dense_retrieval."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Query, Request
from prometheus_client import Gauge, Histogram
from starlette.responses import Response

from services.chassis import (
    CallFailed,
    Problem,
    Rejected,
    ServiceClient,
    create_service,
    current,
)

from .domain import (
    Best,
    BuildFilter,
    Entry,
    Filter,
    ModelMismatch,
    Options,
    Parts,
    PointId,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    VectorStore,
    WrongDimension,
    best,
    build_filter,
    open_store,
    point_id,
)
from .schemas import (
    DeleteResponse,
    Id,
    PutRequest,
    PutResponse,
    SearchRequest,
    SearchResponse,
    StatsResponse,
)
from .settings import Settings
from .vectors import Vector, decode

T = TypeVar("T")

_LOOK_AGAIN = 1.0  # seconds

WAY_OUT = (
    "Vectors of two models cannot be compared. Empty the collection "
    "(DELETE /v1/passages?all=true), then ingest the documents again (`workshop ingest PATH…`)."
)


class _Runner:
    """Where store calls run. Writes one at a time, in their own thread; a search in another
    thread only if the engine leaves Python's lock, because otherwise a thread gains nothing."""

    def __init__(self, store: VectorStore) -> None:
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._reads = None if store.holds_gil else ThreadPoolExecutor(4, "search")

    async def write(self, work: Callable[[], T]) -> T:
        return await self._in(self._writes, work)

    async def read(self, work: Callable[[], T]) -> T:
        return await self._in(self._reads, work)

    async def _in(self, pool: ThreadPoolExecutor | None, work: Callable[[], T]) -> T:
        deadline = current().deadline

        def timely() -> T:
            if deadline.passed:
                raise Problem(504, "deadline-passed", "The time ran out before the work began.")
            return work()

        try:
            if pool is None:
                return timely()
            return await asyncio.get_running_loop().run_in_executor(pool, timely)
        except (StoreFull, StoreUnavailable, ModelMismatch, WrongDimension) as error:
            _raise_problem(error)

    async def keep_up(self, store: VectorStore) -> None:
        """Learn what other instances write to a shared store. In the thread that writes, so that
        it never looks at a write half done."""
        while store.shared:
            await asyncio.sleep(_LOOK_AGAIN)
            with contextlib.suppress(StoreUnavailable):  # a search says so to whoever asks
                await asyncio.get_running_loop().run_in_executor(self._writes, store.refresh)

    def close(self) -> None:
        self._writes.shutdown()
        if self._reads is not None:
            self._reads.shutdown()


def _raise_problem(error: Exception) -> NoReturn:
    match error:
        case StoreFull():
            raise Problem(
                503,
                "disk-full",
                f"Nothing of this request is acknowledged: {error}. Free some space, try again.",
                headers={"retry-after": "60"},
            ) from error
        case ModelMismatch():
            raise Problem(409, "model-mismatch", f"{_sentence(error)} {WAY_OUT}") from error
        case WrongDimension():
            field = ".".join(map(str, error.place))
            raise Problem(
                422,
                "invalid-field",
                f"{field}: {error}.",
                errors=[{"field": field, "problem": str(error)}],
            ) from error
        case _:
            raise Problem(
                503,
                "store-unavailable",
                f"The vector store cannot be used now: {error}.",
                headers={"retry-after": "1"},
            ) from error


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def create_app(
    settings: Settings,
    *,
    point_id: PointId = point_id,
    build_filter: BuildFilter = build_filter,
    best: Best = best,
) -> FastAPI:
    """The app. `point_id`, `build_filter` and `best` are what a store has as its `Parts`."""
    parts = Parts(point_id, build_filter, best)

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        store = await _open(app, settings, parts)
        app.state.store, app.state.runner = store, _Runner(store)
        app.state.embedding = ServiceClient(
            "embedding", settings.embedding_url, timeout=settings.embedding_timeout
        )
        registry = app.state.metrics.registry
        app.state.search_seconds = Histogram(
            "dense_search_seconds",
            "Time in the vector store for one search, in seconds.",
            buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5),
            registry=registry,
        )
        passages = Gauge("dense_passages", "Passages in the collection.", registry=registry)
        passages.set_function(lambda: len(store))
        keeping_up = asyncio.create_task(app.state.runner.keep_up(store))
        yield
        keeping_up.cancel()
        await asyncio.gather(keeping_up, return_exceptions=True)
        await app.state.embedding.aclose()
        app.state.runner.close()
        await asyncio.to_thread(store.close)

    return create_service(
        settings,
        title="dense_retrieval",
        description="The nearest passages by vector, from a Qdrant collection.",
        router=_router(),
        resources=resources,
    )


async def _open(app: FastAPI, settings: Settings, parts: Parts) -> VectorStore:
    """Open the store; while a server is away or a folder is taken, say so and try again."""
    readiness = app.state.readiness
    key = settings.qdrant_api_key
    options = Options(settings.exact_below, settings.hnsw_ef, settings.min_free_bytes)
    readiness.set_missing(
        "opening the collection; with more passages than DENSE_EXACT_BELOW and no HNSW graph yet, "
        "the graph is built first, which takes minutes"
    )
    while True:
        try:
            return await asyncio.to_thread(
                open_store,
                settings.store,
                settings.home,
                url=settings.qdrant_url,
                api_key=key.get_secret_value() if key else None,
                collection=settings.collection,
                options=options,
                parts=parts,
            )
        except (StoreLocked, StoreUnavailable) as error:
            if readiness.reason == "shutting down":
                raise
            readiness.set_missing(str(error))
        await asyncio.sleep(1.0)


async def _vector_of(query: str, model: str, using: str, app: FastAPI) -> Vector:
    """The query's vector from the embedding service, made by the model of the stored vectors."""
    client: ServiceClient = app.state.embedding
    body = {
        "input": query,
        "model": model,
        "encoding_format": "base64",
        "input_type": "query",
    }
    # Less than all: one that hangs must be named before the caller gives this service up.
    seconds = current().deadline.left * app.state.settings.embedding_share
    try:
        answer = await client.post("/v1/embeddings", body, timeout=min(seconds, client.timeout))
        return decode(answer["data"][0]["embedding"])
    except Rejected as error:
        kind = str(error.problem.get("type", "")).rpartition(":")[2]
        if error.status == 404 or "model" in kind:
            raise Problem(
                409,
                "model-mismatch",
                f"The stored {using} vectors were made by {model}; the embedding service does "
                f"not offer it ({error.reason}). Give it that model again, or: {WAY_OUT}",
            ) from error
        raise Problem(
            error.status or 422, "query-refused", f"query: {error.reason}", service=error.service
        ) from error
    except CallFailed as error:
        if current().deadline.passed:
            raise Problem(504, "deadline-passed", "The time ran out at the embedding.") from error
        raise _embedding_gone(error.reason) from error
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _embedding_gone("it did not answer in the agreed form") from error


def _embedding_gone(reason: str) -> Problem:
    return Problem(
        503,
        "embedding-unavailable",
        f"The query could not be turned into a vector: {reason}. Send `vector` or try again.",
        headers={"retry-after": "1"},
        service="embedding",
    )


def _json(body: object) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def _router() -> APIRouter:
    router = APIRouter()

    @router.put("/passages", response_model=PutResponse, summary="Store passages and vectors")
    async def put(body: PutRequest, request: Request) -> Response:
        state = request.app.state
        entries = [
            Entry(
                passage.model_dump(exclude={"vectors"}),
                {str(role): vector for role, vector in passage.vectors.items()},
            )
            for passage in body.passages
        ]
        models = {str(role): model for role, model in body.models.items()}
        stored = await state.runner.write(lambda: state.store.put(models, entries))
        return _json({"stored": stored})

    @router.delete("/passages", response_model=DeleteResponse, summary="Delete passages")
    async def delete(
        request: Request,
        document: Annotated[
            list[Id], Query(max_length=1000, description="all passages of these documents")
        ] = [],  # noqa: B006 - FastAPI copies defaults
        id: Annotated[list[Id], Query(max_length=1000, description="these passages")] = [],  # noqa: B006
        all: Annotated[bool, Query(description="everything, and the models are forgotten")] = False,
    ) -> Response:
        state = request.app.state
        if not document and not id and not all:
            raise Problem(
                422,
                "invalid-field",
                "document: name at least one document or id to delete, or all=true.",
                errors=[{"field": "document", "problem": "no document and no id was given"}],
            )
        if all:
            deleted = await state.runner.write(state.store.clear)
        else:
            deleted = await state.runner.write(
                lambda: state.store.delete(documents=document, ids=id)
            )
        return _json({"deleted": deleted})

    @router.post("/search", response_model=SearchResponse, summary="Search by vector")
    async def search(body: SearchRequest, request: Request) -> Response:
        state = request.app.state
        store: VectorStore = state.store
        space = store.spaces.get(body.using)
        if space is None or not len(store):
            return _json({"hits": [], "model": None, "using": body.using})
        if body.model is not None and body.model != space.model:
            _raise_problem(
                ModelMismatch(
                    f"the stored {body.using} vectors were made by {space.model}, "
                    f"this one by {body.model}"
                )
            )
        vector: Any = body.vector
        if body.query is not None:
            vector = await _vector_of(body.query, space.model, body.using, request.app)
            if len(vector) != space.dimensions:
                _raise_problem(
                    ModelMismatch(
                        f"the stored {body.using} vectors have {space.dimensions} numbers; "
                        f"{space.model} now gives {len(vector)}"
                    )
                )
        where = Filter(**body.filter.model_dump())

        def work() -> list[Any]:
            started = time.perf_counter()
            hits = store.search(vector, using=body.using, top_k=body.top_k, where=where)
            state.search_seconds.observe(time.perf_counter() - started)
            return hits

        hits = await state.runner.read(work)
        return _json({"hits": hits, "model": space.model, "using": body.using})

    @router.get("/stats", response_model=StatsResponse, summary="What is stored")
    async def stats(request: Request) -> Response:
        state = request.app.state
        return _json(await state.runner.read(state.store.stats))

    return router
