"""The calls of the worker: vectors from embedding, passages into both indexes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from services.chassis import (
    BadAnswer,
    Rejected,
    RequestContext,
    ServiceClient,
    get_logger,
    use_context,
)

from .batching import Batcher
from .domain import Passage, index_text
from .settings import Settings

_ENGLISH = "english"
_IDS_PER_DELETE = 50  # they travel in the URL


class Indexes:
    """Embedding, dense and sparse retrieval, and reranking, as the worker needs them.

    Make it inside a running event loop. Failed calls raise the `CallFailed` of the service.
    """

    def __init__(self, settings: Settings) -> None:
        def client(name: str, url: str) -> ServiceClient:
            return ServiceClient(name, url, timeout=settings.call_timeout, connections=8)

        self._models = settings.models
        self._timeout = settings.call_timeout
        self._embedding = client("embedding", settings.embedding_url)
        self._dense = client("dense_retrieval", settings.dense_url)
        self._sparse = client("sparse_retrieval", settings.sparse_url)
        self._reranking = client("reranking", settings.reranking_url)
        # Two calls under way keep embedding busy while an answer travels; the indexes write one
        # batch after the other anyway.
        self._vectors = {
            role: Batcher[str, str](self._embed_with(model), settings.embed_batch, lanes=2)
            for role, model in settings.models.items()
        }
        self._to_dense = Batcher[dict[str, Any], None](self._put_dense, settings.index_batch)
        self._to_sparse = Batcher[dict[str, Any], None](self._put_sparse, settings.index_batch)

    async def aclose(self) -> None:
        for vectors in self._vectors.values():
            await vectors.aclose()
        for index in (self._to_dense, self._to_sparse):
            await index.aclose()
        for client in (self._embedding, self._dense, self._sparse, self._reranking):
            await client.aclose()

    async def embed(self, passages: Sequence[Passage]) -> list[dict[str, str]]:
        """Base64 vectors of each passage by role: all roles for English, else without English.

        A role whose model embedding does not serve is left out, unless it is the only one.
        """
        found: list[dict[str, str]] = [{} for _ in passages]

        async def one(role: str, batcher: Batcher[str, str]) -> None:
            places = [n for n, p in enumerate(passages) if role != _ENGLISH or p.language == "en"]
            if not places:
                return
            try:
                vectors = await batcher.submit([index_text(passages[n]) for n in places])
            except Rejected as error:
                if role == _ENGLISH and len(self._models) > 1 and _model_unknown(error):
                    get_logger().warning("english_vectors_left_out", reason=error.reason)
                    return
                raise
            for n, vector in zip(places, vectors, strict=True):
                found[n][role] = vector

        await _all(*(one(role, batcher) for role, batcher in self._vectors.items()))
        return found

    async def put(self, passages: Sequence[Passage], vectors: Sequence[dict[str, str]]) -> None:
        """Returns when both indexes have all of them on disk."""
        bodies = [asdict(passage) for passage in passages]
        dense = [body | {"vectors": v} for body, v in zip(bodies, vectors, strict=True)]
        await _all(self._to_dense.submit(dense), self._to_sparse.submit(bodies))

    async def delete(self, ids: Sequence[str]) -> None:
        """Remove passages from both indexes; those that are not there are no error."""
        for start in range(0, len(ids), _IDS_PER_DELETE):
            query = urlencode([("id", name) for name in ids[start : start + _IDS_PER_DELETE]])
            await self._delete(query)

    async def delete_document(self, document_id: str) -> None:
        await self._delete(urlencode({"document": document_id}))

    async def _delete(self, query: str) -> None:
        path = f"/v1/passages?{query}"
        await _all(self._dense.request("DELETE", path), self._sparse.request("DELETE", path))

    async def encode_ahead(self, texts: list[str]) -> None:
        """Have reranking compute now what it would else compute at the first question."""
        with use_context(RequestContext.new(self._timeout)):
            await self._reranking.request("PUT", "/v1/passages", {"texts": texts})

    # -- calls -----------------------------------------------------------------------------

    def _embed_with(self, model: str) -> Any:
        async def embed(texts: list[str]) -> list[str]:
            body = {
                "model": model,
                "input": texts,
                "input_type": "passage",
                "encoding_format": "base64",
            }
            # A batch serves several jobs: it has its own time and id, not one job's.
            with use_context(RequestContext.new(self._timeout)):
                answer = await self._embedding.post("/v1/embeddings", body)
            try:
                items = sorted(answer["data"], key=lambda item: item["index"])
                vectors = [item["embedding"] for item in items]
                same_model = answer["model"] == model
            except (KeyError, TypeError) as error:
                raise BadAnswer("embedding", "answered without vectors") from error
            if len(vectors) != len(texts) or not same_model:
                raise BadAnswer("embedding", "answered with another model or number of vectors")
            return vectors

        return embed

    async def _put_dense(self, passages: list[dict[str, Any]]) -> list[None]:
        with use_context(RequestContext.new(self._timeout)):
            roles = {role for passage in passages for role in passage["vectors"]}
            models = {role: self._models[role] for role in sorted(roles)}
            body = {"models": models, "passages": passages}
            await self._dense.request("PUT", "/v1/passages", body)
        return [None] * len(passages)

    async def _put_sparse(self, passages: list[dict[str, Any]]) -> list[None]:
        with use_context(RequestContext.new(self._timeout)):
            await self._sparse.request("PUT", "/v1/passages", {"passages": passages})
        return [None] * len(passages)


def _model_unknown(error: Rejected) -> bool:
    return error.status == 404 or "model" in str(error.problem.get("type", ""))


async def _all(*work: Any) -> None:
    """All of them, even if one fails; then the first failure.

    A job must not be tried again while one of its earlier writes is still under way.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
