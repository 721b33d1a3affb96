"""The HTTP face of embedding: OpenAI's /v1/embeddings over the batcher and the cache."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import orjson
from fastapi import APIRouter, FastAPI, Request
from numpy.typing import NDArray
from starlette.responses import Response

from services.chassis import Problem, create_service, current

from .batching import Batcher, Choose, DeadlinePassed, next_batch
from .cache import LruCache
from .domain import InputType, Pool, TextEncoder
from .metrics import EmbeddingMetrics
from .models import load_encoders
from .schemas import EmbeddingsRequest, EmbeddingsResponse, ModelList
from .settings import Settings

# Tokenising this many characters takes about a millisecond; more goes off the event loop.
_INLINE_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache keeps of a text."""

    vector: NDArray[np.float32]
    tokens: int
    truncated: bool


@dataclass(slots=True)
class Served:
    """A loaded model, its aliases and its queue."""

    encoder: TextEncoder
    aliases: tuple[str, ...]
    batcher: Batcher

    @property
    def name(self) -> str:
        return self.encoder.name


def create_app(
    settings: Settings, *, pool: Pool | None = None, choose: Choose = next_batch
) -> FastAPI:
    """`pool` makes a vector of a text's hidden states (default: the model's own pooling);
    `choose` says which waiting texts run next."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        metrics = EmbeddingMetrics(app.state.metrics.registry)
        loaded = await asyncio.to_thread(load_encoders, settings, pool)
        app.state.models = [
            Served(
                encoder,
                aliases,
                Batcher(
                    encoder,
                    max_items=settings.max_batch,
                    bulk_tokens=settings.bulk_batch_tokens,
                    choose=choose,
                    on_batch=metrics.on_batch(encoder.name),
                ),
            )
            for encoder, aliases in loaded
        ]
        app.state.cache = LruCache[Entry](settings.cache_size)
        app.state.embedding_metrics = metrics
        app.state.tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        yield
        for served in app.state.models:
            await served.batcher.aclose()
        app.state.tokenizing.shutdown(wait=True)

    return create_service(
        settings,
        title="embedding",
        description="Turns texts into vectors: OpenAI-compatible, batched, cached.",
        router=_router(settings),
        resources=resources,
    )


def _router(settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.post("/embeddings", response_model=EmbeddingsResponse, summary="Vectors of texts")
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        app = request.app
        served = _choose(app.state.models, body.model)
        if body.dimensions not in (None, served.encoder.dimension):
            raise Problem(
                422,
                "dimensions-unsupported",
                f"dimensions: {served.name} gives {served.encoder.dimension} dimensions and cannot "
                "be shortened; leave the field out.",
                errors=[{"field": "dimensions", "problem": f"must be {served.encoder.dimension}"}],
            )
        texts = [body.input] if isinstance(body.input, str) else body.input
        entries = await _entries(app, served, texts, body.input_type)
        as_base64 = body.encoding_format == "base64"
        tokens = sum(entry.tokens for entry in entries)
        answer = {
            "object": "list",
            "model": served.name,
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _base64(entry.vector) if as_base64 else entry.vector,
                }
                for index, entry in enumerate(entries)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "truncated": [index for index, entry in enumerate(entries) if entry.truncated],
        }
        return Response(
            orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
        )

    @router.get("/models", response_model=ModelList, summary="Models that can be asked for")
    async def models(request: Request) -> dict[str, object]:
        return {
            "object": "list",
            "data": [
                {
                    "id": served.name,
                    "object": "model",
                    "created": 0,
                    "owned_by": "rag-workshop",
                    "aliases": list(served.aliases),
                    "dimension": served.encoder.dimension,
                    "max_tokens": served.encoder.max_tokens,
                    "runtime": settings.runtime,
                }
                for served in request.app.state.models
            ],
        }

    return router


def _choose(models: Sequence[Served], name: str | None) -> Served:
    if name is None:
        return models[0]
    for served in models:
        if name == served.name or name in served.aliases:
            return served
    known = ", ".join(f"{served.name} ({', '.join(served.aliases)})" for served in models)
    raise Problem(404, "unknown-model", f"model: this service has {known}, and no other.")


async def _entries(
    app: FastAPI, served: Served, texts: Sequence[str], input_type: InputType
) -> list[Entry]:
    """An entry a text, from the cache where it is there, else from the model."""
    cache: LruCache[Entry] = app.state.cache
    metrics: EmbeddingMetrics = app.state.embedding_metrics
    found: dict[str, Entry] = {}
    missing: list[str] = []
    for text in dict.fromkeys(texts):
        entry = cache.get((served.name, input_type, text))
        if entry is None:
            missing.append(text)
        else:
            found[text] = entry
    metrics.on_lookup(served.name, hits=len(found), misses=len(missing))
    if missing:
        if sum(map(len, missing)) <= _INLINE_CHARACTERS:
            prepared = served.encoder.prepare(missing, input_type)
        else:
            prepared = await asyncio.get_running_loop().run_in_executor(
                app.state.tokenizing, served.encoder.prepare, missing, input_type
            )
        try:
            vectors = await served.batcher.submit(prepared, seconds=current().deadline.left)
        except DeadlinePassed:
            raise Problem(
                504, "deadline-passed", "The time ran out while the texts waited for the model."
            ) from None
        for text, item, vector in zip(missing, prepared, vectors, strict=True):
            # A copy: a row of a large batch would keep the whole batch in memory.
            entry = Entry(vector.copy(), item.length, item.truncated)
            found[text] = entry
            cache.put((served.name, input_type, text), entry)
    return [found[text] for text in texts]


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
