"""Qdrant's own engine in this process (qdrant-edge-py)."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import portalocker
import qdrant_edge as qdrant

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
    VectorStore,
    is_full,
)
from .vectors import Vector

T = TypeVar("T")

# The engine keeps Python's lock during a call: small batches let searches in between.
_BATCH = 64
_CONFIG = "edge_config.json"
# Passages that a start after a crash may have to read again from the log: a second or so.
_LONGEST_LOG = 5000


class EdgeStore(VectorStore):
    """A collection in `folder`, which one process at a time may open.

    Every call holds Python's global lock until it returns, so a thread would gain nothing.
    """

    def __init__(self, folder: Path, options: Options, parts: Parts) -> None:
        """Open or create the collection. Raises StoreLocked.

        With more than `options.exact_below` passages and no graph for them yet, builds the HNSW
        graph first, in a child process: it takes minutes and would stop this one.
        """
        super().__init__(options, parts)
        self.kind = "edge"
        self.holds_gil = True
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder
        self._data = folder / "shard"
        self._lock = portalocker.Lock(
            folder / "lock", mode="a", timeout=0, flags=portalocker.LOCK_EX | portalocker.LOCK_NB
        )
        try:
            self._lock.acquire()
        except portalocker.LockException as error:
            raise StoreLocked(
                f"the collection in {folder} is open in another process; stop that process or "
                "set DENSE_DATA_DIR to another folder"
            ) from error
        # A search may run while another thread clears the collection.
        self._open_lock = threading.Lock()
        self._shard: qdrant.EdgeShard | None = None
        self._count = 0
        self._logged = 0  # passages since the engine's last flush
        if not (self._data / _CONFIG).exists():
            # Never used, or a creation or a clearing was cut off.
            shutil.rmtree(self._data, ignore_errors=True)
            return
        self.spaces = {space.role: space for space in _stored_spaces(self._data)}
        self._load()
        if self._lacks_graph():
            self._close_shard()
            _in_child(build_graph, str(self._data), self.options.exact_below)
            self._load()

    def _load(self) -> None:
        try:
            self._shard = qdrant.EdgeShard.load(str(self._data))
        except Exception as error:
            self._lock.release()
            if "WouldBlock" in str(error):  # a child that builds the graph outlived its parent
                raise StoreLocked(
                    f"the collection in {self._path} is still being worked on by another process"
                ) from error
            raise
        self._recount()

    def _recount(self) -> None:
        assert self._shard is not None
        self._count = self._shard.count(qdrant.CountRequest(exact=True))

    def _lacks_graph(self) -> bool:
        assert self._shard is not None
        indexed = self._shard.info().indexed_vectors_count
        return self._count > self.options.exact_below and indexed < self._count / 2

    def _create(self, spaces: Sequence[Space]) -> None:
        self._data.mkdir()
        # Cold: pages of the vectors' file are read when a search needs them, and stay. By default
        # all 32 MB of each file's first part would be, however few the vectors in it.
        vectors = {
            space.name: qdrant.EdgeVectorParams(
                space.dimensions, qdrant.Distance.Cosine, memory=qdrant.Memory.Cold
            )
            for space in spaces
        }
        self._shard = self._guard(
            lambda: qdrant.EdgeShard.create(str(self._data), qdrant.EdgeConfig(vectors=vectors))
        )
        for payload in FILTERED.values():
            self._do(
                qdrant.UpdateOperation.create_field_index(payload, qdrant.PayloadSchemaType.Keyword)
            )
        self._flush_all()

    def _add_space(self, space: Space) -> None:
        self._do(
            qdrant.UpdateOperation.create_dense_vector(
                space.name, space.dimensions, qdrant.Distance.Cosine
            )
        )
        self._flush_all()

    def _upsert(self, entries: Sequence[Entry]) -> None:
        for start in range(0, len(entries), _BATCH):
            points = [
                qdrant.Point(
                    self.parts.point_id(entry.passage["id"]),
                    {
                        self.spaces[role].name: vector.tolist()
                        for role, vector in entry.vectors.items()
                    },
                    dict(entry.passage),
                )
                for entry in entries[start : start + _BATCH]
            ]
            self._do(qdrant.UpdateOperation.upsert_points(points))
        self._logged += len(entries)
        self._recount()

    def _delete(self, documents: list[str], ids: list[str]) -> int:
        conditions: list[qdrant.FieldCondition | qdrant.HasIdCondition] = []
        if documents:
            conditions.append(
                qdrant.FieldCondition("document", match=qdrant.MatchAny(any=documents))
            )
        if ids:
            conditions.append(qdrant.HasIdCondition({self.parts.point_id(name) for name in ids}))
        before = self._count
        chosen = qdrant.Filter(should=list(conditions))
        self._do(qdrant.UpdateOperation.delete_points_by_filter(chosen))
        self._recount()
        return before - self._count

    def _nearest(
        self, vector: Vector, name: str, limit: int, where: Filter, exact: bool
    ) -> list[Hit]:
        request = qdrant.QueryRequest(
            query=qdrant.Query.Nearest(vector.tolist(), using=name),
            limit=limit,
            filter=self.parts.build_filter(qdrant, where.fields()),
            params=qdrant.SearchParams(exact=exact, hnsw_ef=self.options.hnsw_ef),
            with_payload=True,
        )
        with self._open_lock:
            points = [] if self._shard is None else self._shard.query(request)
        return [
            Hit(payload["id"], point.score, payload)
            for point in points
            if (payload := point.payload) is not None
        ]

    def _clear(self) -> None:
        self._close_shard()
        # Without its configuration the folder counts as unused, even if the rest is cut off.
        (self._data / _CONFIG).unlink(missing_ok=True)
        shutil.rmtree(self._data, ignore_errors=True)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def _documents(self) -> int:
        if self._shard is None or not self._count:
            return 0
        request = qdrant.FacetRequest("document", limit=self._count, exact=True)
        # A document whose passages are all deleted stays listed with none.
        return sum(hit.count > 0 for hit in self._shard.facet(request).hits)

    def flush(self) -> None:
        """Bring the write-ahead log to the disk (fsync, which leaves Python's lock).

        The engine's own flush, which also writes the segments and shortens the log, holds the
        lock for tens of milliseconds, so it runs once every `_LONGEST_LOG` passages.
        """
        if self._shard is None:
            return
        if self._logged >= _LONGEST_LOG:
            self._flush_all()
            return
        folder = self._data / "wal"
        for path in (*folder.iterdir(), folder):
            _fsync(path)

    def _flush_all(self) -> None:
        shard = self._shard
        assert shard is not None
        self._guard(shard.flush)
        self._logged = 0

    def close(self) -> None:
        self._close_shard()
        self._lock.release()

    def _close_shard(self) -> None:
        with self._open_lock:
            shard, self._shard = self._shard, None
            if shard is not None:
                shard.close()

    def _folder(self) -> Path:
        return self._path

    def _do(self, operation: qdrant.UpdateOperation) -> None:
        shard = self._shard
        assert shard is not None
        self._guard(lambda: shard.update(operation))

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            if is_full(error):
                raise StoreFull(f"no room on the disk of {self._path}") from error
            raise


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows has no handle to sync for a folder
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def build_graph(folder: str, exact_below: int) -> None:
    """Build the HNSW graphs of the shard in `folder`, which no process has open."""
    spaces = _stored_spaces(Path(folder))
    # Qdrant wants the size from which a segment gets a graph in kilobytes of vectors.
    kilobytes = max(1, exact_below * min(space.dimensions for space in spaces) * 4 // 1024)
    config = qdrant.EdgeConfig(
        vectors={
            space.name: qdrant.EdgeVectorParams(space.dimensions, qdrant.Distance.Cosine)
            for space in spaces
        },
        hnsw_config=qdrant.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=kilobytes),
        optimizers=qdrant.EdgeOptimizersConfig(
            indexing_threshold=kilobytes, default_segment_number=1
        ),
    )
    shard = qdrant.EdgeShard.load(folder, config)
    shard.optimize()
    shard.close()


def _stored_spaces(data: Path) -> list[Space]:
    return list(map(Space.parse, json.loads((data / _CONFIG).read_text())["vectors"]))


def _in_child(work: Callable[..., None], *arguments: object) -> None:
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"building the HNSW graph ended with exit code {child.exitcode}")
