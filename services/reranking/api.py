"""The HTTP face of reranking: /v1/rerank, and passages encoded ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from services.chassis import Problem, create_service, current, release_free_memory

from .domain import Engine, Pace, TimeLeft, rank
from .engines import load_engine
from .late_interaction import LateInteraction, MaxSim, max_sim
from .metrics import RerankingMetrics
from .promotion import Gate, decide
from .schemas import (
    ModelList,
    PassagesRequest,
    PassagesResponse,
    RerankRequest,
    RerankResponse,
)
from .settings import Settings

# Passages encoded between two looks at whether the caller still waits, and whether others do.
_PUT_CHUNK = 4
# The longest wait of such a chunk, in seconds: under a load that never ends it comes all the same.
_LETS_OTHERS_GO = 1.0


class Turns:
    """Who waits for an answer goes before passages that are encoded ahead."""

    def __init__(self) -> None:
        self._asking = 0
        self._nobody_asks = asyncio.Event()
        self._nobody_asks.set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        self._asking += 1
        self._nobody_asks.clear()
        try:
            yield
        finally:
            self._asking -= 1
            if not self._asking:
                self._nobody_asks.set()

    async def let_others_go(self, seconds: float) -> None:
        """Return when nobody asks, or after so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._nobody_asks.wait(), seconds)


def create_app(settings: Settings, *, score: MaxSim = max_sim, gate: Gate = decide) -> FastAPI:
    """The app. `score` compares token vectors; `gate` admits what the registry has promoted."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = await asyncio.to_thread(load_engine, settings, score=score, gate=gate)
        app.state.reranking_metrics = RerankingMetrics(app.state.metrics.registry)
        app.state.pace, app.state.turns = Pace(), Turns()
        # Two threads: a rerank never waits for passages that are encoded ahead.
        app.state.ranking = ThreadPoolExecutor(1, thread_name_prefix="rank")
        app.state.encoding = ThreadPoolExecutor(1, thread_name_prefix="encode")
        yield
        app.state.ranking.shutdown(wait=True)
        app.state.encoding.shutdown(wait=True)
        if isinstance(app.state.engine, LateInteraction):
            app.state.engine.store.close()

    return create_service(
        settings,
        title="reranking",
        description="Puts candidate passages in the order of their relevance to a query.",
        router=_router(settings),
        resources=resources,
    )


def _router(settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.post("/rerank", response_model=RerankResponse, summary="Order documents by relevance")
    async def rerank(body: RerankRequest, request: Request) -> Response:
        app = request.app
        engine: Engine = app.state.engine
        if body.model not in (None, engine.model):
            raise Problem(
                404, "unknown-model", f"model: this service runs {engine.model}, and no other."
            )
        texts = [one if isinstance(one, str) else one.text for one in body.documents]
        deadline = current().deadline

        def work() -> Any:
            # Looked at here, in the thread: the wait for it may have taken the time.
            seconds = deadline.left - settings.reserve
            if seconds <= 0:
                return None
            return rank(engine, body.query, texts, TimeLeft(seconds, app.state.pace))

        with app.state.turns.asking():
            ranking = await asyncio.get_running_loop().run_in_executor(app.state.ranking, work)
        if ranking is None:
            raise Problem(504, "deadline-passed", "No time was left to rank anything.")
        metrics: RerankingMetrics = app.state.reranking_metrics
        metrics.candidates.observe(len(texts))
        metrics.unranked.inc(len(texts) - ranking.ranked)
        results: list[dict[str, Any]] = [
            {"index": item.index, "relevance_score": round(item.score, 6)}
            for item in ranking.results[: body.top_n]
        ]
        if body.return_documents:
            for result in results:
                one = body.documents[result["index"]]
                result["document"] = {"text": one} if isinstance(one, str) else one.model_dump()
        answer = {
            "id": current().request_id,
            "model": engine.model,
            "results": results,
            "meta": {
                "engine": engine.kind,
                "ranked": ranking.ranked,
                "complete": ranking.complete,
            },
        }
        return Response(orjson.dumps(answer), media_type="application/json")

    @router.put("/passages", response_model=PassagesResponse, summary="Encode passages ahead")
    async def put_passages(body: PassagesRequest, request: Request) -> dict[str, int]:
        app = request.app
        engine = app.state.engine
        if not isinstance(engine, LateInteraction):
            return {"encoded": 0, "known": 0}
        deadline = current().deadline
        texts = sorted(dict.fromkeys(body.texts), key=len)  # little of a chunk is padding
        encoded = known = 0
        for start in range(0, len(texts), _PUT_CHUNK):
            await app.state.turns.let_others_go(_LETS_OTHERS_GO)
            if deadline.passed:
                raise Problem(
                    504,
                    "deadline-passed",
                    f"{start} of {len(texts)} passages were kept before the time ran out. "
                    "Send the same request again: what is kept is not encoded twice.",
                )
            chunk = texts[start : start + _PUT_CHUNK]
            new, old = await asyncio.get_running_loop().run_in_executor(
                app.state.encoding, engine.put, chunk
            )
            encoded, known = encoded + new, known + old
        if encoded:
            await asyncio.get_running_loop().run_in_executor(
                app.state.encoding, release_free_memory
            )
        app.state.reranking_metrics.encoded.inc(encoded)
        return {"encoded": encoded, "known": known}

    @router.get("/models", response_model=ModelList, summary="The model that ranks")
    async def models(request: Request) -> dict[str, object]:
        engine: Engine = request.app.state.engine
        return {
            "object": "list",
            "data": [
                {
                    "id": engine.model,
                    "object": "model",
                    "created": 0,
                    "owned_by": "rag-workshop",
                    "engine": engine.kind,
                }
            ],
        }

    return router
