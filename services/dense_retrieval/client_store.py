"""Qdrant through qdrant-client: a server by URL, or its local mode in a folder or in memory."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from .domain import (
    FILTERED,
    Entry,
    Filter,
    Hit,
    Options,
    Parts,
    Space,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    VectorStore,
    is_full,
)
from .vectors import Vector

T = TypeVar("T")

_TIMEOUT = 30


class ClientStore(VectorStore):
    """A collection on a server, or in a folder which one process at a time may open.

    Local mode is exact and not thread-safe, so its calls are serialised here. A server
    acknowledges a write once it is in its write-ahead log.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        url: str | None = None,
        api_key: str | None = None,
        collection: str = "passages",
        options: Options,
        parts: Parts,
    ) -> None:
        """Connect, or open the folder. Raises StoreUnavailable or StoreLocked."""
        super().__init__(options, parts)
        self.kind = "client-server" if url else "client-local"
        self._path = folder
        self._collection = collection
        self._serialise = None if url else threading.RLock()
        self._count = 0
        try:
            if url:
                self._client = QdrantClient(
                    url=url, api_key=api_key, timeout=_TIMEOUT, check_compatibility=False
                )
            else:
                self._client = QdrantClient(
                    location=None if folder else ":memory:",
                    path=str(folder) if folder else None,
                    force_disable_check_same_thread=True,
                )
        except RuntimeError as error:
            if "already accessed" in str(error):
                raise StoreLocked(
                    f"the collection in {folder} is open in another process; stop that process or "
                    "set DENSE_DATA_DIR to another folder"
                ) from error
            raise
        self.shared = bool(url)
        self.refresh()

    def refresh(self) -> None:
        spaces: dict[str, Space] = {}
        count = 0
        if self._call(lambda: self._client.collection_exists(self._collection)):
            info = self._call(lambda: self._client.get_collection(self._collection))
            vectors = info.config.params.vectors
            names = list(vectors) if isinstance(vectors, dict) else []
            spaces = {space.role: space for space in map(Space.parse, names)}
            count = self._counted()
        self.spaces, self._count = spaces, count

    def _counted(self) -> int:
        return self._call(lambda: self._client.count(self._collection, exact=True)).count

    def _create(self, spaces: Sequence[Space]) -> None:
        smallest = min(space.dimensions for space in spaces)
        kilobytes = max(1, self.options.exact_below * smallest * 4 // 1024)
        self._call(
            lambda: self._client.create_collection(
                self._collection,
                vectors_config={
                    space.name: models.VectorParams(
                        size=space.dimensions, distance=models.Distance.COSINE
                    )
                    for space in spaces
                },
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes),
            )
        )
        if self.kind == "client-server":  # local mode has no payload indexes and warns
            for payload in FILTERED.values():
                self._index(payload)

    def _add_space(self, space: Space) -> None:
        vector = models.DenseVectorConfig(size=space.dimensions, distance=models.Distance.COSINE)
        self._call(
            lambda: self._client.create_vector_name(
                self._collection, space.name, models.DenseVectorNameConfig(dense=vector)
            )
        )

    def _index(self, payload: str) -> None:
        self._call(
            lambda: self._client.create_payload_index(
                self._collection, payload, models.PayloadSchemaType.KEYWORD
            )
        )

    def _upsert(self, entries: Sequence[Entry]) -> None:
        points = [
            models.PointStruct(
                id=self.parts.point_id(entry.passage["id"]),
                vector={
                    self.spaces[role].name: vector.tolist()
                    for role, vector in entry.vectors.items()
                },
                payload=dict(entry.passage),
            )
            for entry in entries
        ]
        self._call(lambda: self._client.upsert(self._collection, points, wait=True))
        self._count = self._counted()

    def _delete(self, documents: list[str], ids: list[str]) -> int:
        chosen: list[models.Condition] = []
        if documents:
            chosen.append(
                models.FieldCondition(key="document", match=models.MatchAny(any=documents))
            )
        if ids:
            chosen.append(models.HasIdCondition(has_id=[self.parts.point_id(name) for name in ids]))
        before = self._count
        selector = models.FilterSelector(filter=models.Filter(should=chosen))
        self._call(lambda: self._client.delete(self._collection, selector, wait=True))
        self._count = self._counted()
        return before - self._count

    def _nearest(
        self, vector: Vector, name: str, limit: int, where: Filter, exact: bool
    ) -> list[Hit]:
        params = None  # local mode is always exact
        if self.kind == "client-server":
            params = models.SearchParams(exact=exact, hnsw_ef=self.options.hnsw_ef)
        points = self._call(
            lambda: self._client.query_points(
                self._collection,
                query=vector.tolist(),
                using=name,
                limit=limit,
                query_filter=self.parts.build_filter(models, where.fields()),
                search_params=params,
                with_payload=True,
            )
        ).points
        hits = []
        for point in points:
            passage = point.payload or {}
            hits.append(Hit(passage["id"], point.score, passage))
        return hits

    def _clear(self) -> None:
        self._call(lambda: self._client.delete_collection(self._collection))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def _documents(self) -> int:
        if not self._count:
            return 0
        return len(
            self._call(
                lambda: self._client.facet(
                    self._collection, "document", limit=self._count, exact=True
                )
            ).hits
        )

    def flush(self) -> None:
        """Nothing to do: every write is committed (local mode) or logged (server) on return."""

    def close(self) -> None:
        self._client.close()

    def _folder(self) -> Path | None:
        return self._path

    def _call(self, work: Callable[[], T]) -> T:
        try:
            if self._serialise is None:
                return work()
            with self._serialise:
                return work()
        except ResponseHandlingException as error:
            raise StoreUnavailable(f"the Qdrant server does not answer ({error})") from error
        except UnexpectedResponse as error:
            if is_full(error):
                raise StoreFull("the Qdrant server has no room on its disk") from error
            raise StoreUnavailable(
                f"the Qdrant server refused the request ({error.status_code})"
            ) from error
        except (sqlite3.OperationalError, OSError) as error:
            if is_full(error) or "disk is full" in str(error):
                raise StoreFull(f"no room on the disk of {self._path}") from error
            raise
