"""The passages' vectors, in a Qdrant collection: one interface, two implementations.

Usable without the service: `open_store("edge", folder)`.
"""

from __future__ import annotations

import errno
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from .vectors import Vector

NAMESPACE = uuid.UUID("4a1e1e0c-5a53-5b8e-9f0e-6f6a0a1c8d10")
FILTERED = {"language": "language", "document": "document", "tag": "tags"}
"""Filter name → payload field; each has a keyword index."""


class StoreLocked(Exception):
    """Another process has the collection's folder open."""


class StoreFull(Exception):
    """The disk has no room. Nothing of the write is acknowledged."""


class StoreUnavailable(Exception):
    """The Qdrant server does not answer."""


class ModelMismatch(Exception):
    """Vectors of one model cannot be compared with those of another."""


class WrongDimension(Exception):
    """The vector has another length than the collection's."""

    def __init__(self, message: str, place: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class Space:
    """What a named vector holds: the model that made the vectors, and their length.

    The name in the engine carries all three, so vectors of another model have another name: a
    search can never meet them.
    """

    role: str
    model: str
    dimensions: int

    @property
    def name(self) -> str:
        return f"{self.role}@{quote(self.model, safe='')}@{self.dimensions}"

    @classmethod
    def parse(cls, name: str) -> Space:
        role, model, dimensions = name.split("@")
        return cls(role, unquote(model), int(dimensions))


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage with some or all of its vectors, by role (`bilingual`, `english`)."""

    passage: Mapping[str, Any]
    vectors: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class Filter:
    """Only passages that match every given field; within a field, any of its values.

    An empty sequence has no value that could match: nothing is found.
    """

    language: Sequence[str] | None = None
    document: Sequence[str] | None = None
    tag: Sequence[str] | None = None

    def fields(self) -> dict[str, list[str]]:
        """Payload field → accepted values."""
        return {
            payload: list(values)
            for name, payload in FILTERED.items()
            if (values := getattr(self, name)) is not None
        }


@dataclass(frozen=True, slots=True)
class Hit:
    """A found passage and the cosine of its vector with the query's."""

    id: str
    score: float
    passage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """How a store searches and when it refuses to write."""

    exact_below: int = 50_000
    hnsw_ef: int = 128
    min_free_bytes: int = 0


def point_id(passage_id: str) -> str:
    """Qdrant's ids are numbers or UUIDs: the name-based UUID (RFC 9562, version 5) of the id."""
    return str(uuid.uuid5(NAMESPACE, passage_id))


def build_filter(qdrant: Any, fields: Mapping[str, Sequence[str]]) -> Any:
    """Points that match every field (payload field → accepted values), by any of its values.

    `qdrant` is `qdrant_edge` or `qdrant_client.models`: both name the classes alike. None, which
    lets every point pass, when there are no fields.
    """
    if not fields:
        return None
    return qdrant.Filter(
        must=[
            qdrant.FieldCondition(key=name, match=qdrant.MatchAny(any=list(values)))
            for name, values in fields.items()
        ]
    )


Fetch = Callable[[int], Sequence[Hit]]
"""limit → the nearest `limit` points, best first; fewer when there are no more."""


def best(fetch: Fetch, top_k: int) -> list[Hit]:
    """The first `top_k` hits in order of score, ties in order of id.

    The engine gives ties in any order, and cuts through them. So a few more than wanted are
    fetched, and more again while the last one still ties with place `top_k`.
    """
    limit = top_k + 8
    while True:
        hits = fetch(limit)
        if len(hits) < limit or hits[top_k - 1].score != hits[-1].score:
            break
        limit *= 2
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:top_k]


PointId = Callable[[str], str]
BuildFilter = Callable[[Any, Mapping[str, Sequence[str]]], Any]
Best = Callable[[Fetch, int], list[Hit]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a store does in the same way whichever engine is behind it."""

    point_id: PointId = point_id
    build_filter: BuildFilter = build_filter
    best: Best = best


@dataclass
class VectorStore(ABC):
    """Passages with named vectors, compared by cosine.

    Writes must come from one thread at a time. They are durable when `put` or `delete` returns.
    """

    options: Options = field(default_factory=Options)
    parts: Parts = field(default_factory=Parts)
    spaces: dict[str, Space] = field(default_factory=dict, init=False)
    kind: str = field(default="", init=False)
    shared: bool = field(default=False, init=False)
    holds_gil: bool = field(default=False, init=False)

    # What an implementation gives

    @abstractmethod
    def _create(self, spaces: Sequence[Space]) -> None: ...

    @abstractmethod
    def _add_space(self, space: Space) -> None: ...

    @abstractmethod
    def _upsert(self, entries: Sequence[Entry]) -> None: ...

    @abstractmethod
    def _delete(self, documents: list[str], ids: list[str]) -> int: ...

    @abstractmethod
    def _nearest(
        self, vector: Vector, name: str, limit: int, where: Filter, exact: bool
    ) -> list[Hit]: ...

    @abstractmethod
    def _clear(self) -> None: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _documents(self) -> int: ...

    @abstractmethod
    def flush(self) -> None:
        """Everything written so far is on disk after it."""

    @abstractmethod
    def close(self) -> None: ...

    def refresh(self) -> None:  # noqa: B027 - most stores have no other writer
        """Look again at what is stored, where others may write to it too (`shared`)."""

    # What all share

    def put(self, models: Mapping[str, str], entries: Sequence[Entry]) -> int:
        """Store passages, each in place of the one with its id; returns how many.

        `models` names the model that made each role's vectors; an empty store takes any. Raises
        ModelMismatch, WrongDimension or StoreFull; then nothing is acknowledged.
        """
        self.refresh()
        latest = {str(entry.passage["id"]): entry for entry in entries}
        try:
            new = self._new_spaces(models, entries)
        except (ModelMismatch, WrongDimension):
            if len(self):
                raise
            self.clear()  # nothing is left that another model could be compared with
            new = self._new_spaces(models, entries)
        if new:
            self._check_room()
            if not self.spaces:
                self._create(new)
                self.spaces = {space.role: space for space in new}
            else:
                for space in new:
                    self._add_space(space)
                    self.spaces[space.role] = space
        if latest:
            self._check_room()
            self._upsert(list(latest.values()))
            self.flush()
        return len(latest)

    def delete(self, *, documents: Iterable[str] = (), ids: Iterable[str] = ()) -> int:
        """Delete passages by document or by id; returns how many there were."""
        self.refresh()
        chosen = sorted(set(documents)), sorted(set(ids))
        if not self.spaces or not any(chosen):  # a filter without a condition matches every point
            return 0
        deleted = self._delete(*chosen)
        self.flush()
        return deleted

    def clear(self) -> int:
        """Delete every passage and forget the models; returns how many passages there were."""
        self.refresh()
        count = len(self)
        self.spaces = {}
        self._clear()
        return count

    def search(
        self,
        vector: Vector,
        *,
        using: str,
        top_k: int = 10,
        where: Filter | None = None,
    ) -> list[Hit]:
        """The `top_k` passages nearest by cosine, best first; ties in order of id.

        Passages without a vector of the role `using` are not found. Raises WrongDimension.
        """
        space = self.spaces.get(using)
        where = where or Filter()
        if space is None or not all(where.fields().values()):
            return []
        if len(vector) != space.dimensions:
            raise WrongDimension(
                f"has {len(vector)} numbers; the {using} vectors of {space.model} "
                f"have {space.dimensions}",
                ("vector",),
            )
        exact = len(self) <= self.options.exact_below
        return self.parts.best(
            lambda limit: self._nearest(vector, space.name, limit, where, exact), top_k
        )

    def stats(self) -> dict[str, Any]:
        """Number of passages and documents, the models, and the kind of store."""
        return {
            "passages": len(self),
            "documents": self._documents() if self.spaces else 0,
            "models": {
                role: {"model": space.model, "dimensions": space.dimensions}
                for role, space in sorted(self.spaces.items())
            },
            "store": self.kind,
        }

    def check_model(self, role: str, model: str) -> None:
        """Raise ModelMismatch unless the vectors of `role` are from `model`, or there are none."""
        space = self.spaces.get(role)
        if space is not None and space.model != model:
            raise ModelMismatch(
                f"the stored {role} vectors were made by {space.model}, these by {model}"
            )

    def _new_spaces(self, models: Mapping[str, str], entries: Sequence[Entry]) -> list[Space]:
        """Check every vector against its model's space; returns the spaces not yet known."""
        for role, model in models.items():
            self.check_model(role, model)
        spaces = dict(self.spaces)
        for number, entry in enumerate(entries):
            for role, vector in entry.vectors.items():
                if role not in models:
                    raise ModelMismatch(f"no model is named for the {role} vectors")
                space = spaces.setdefault(role, Space(role, models[role], len(vector)))
                if len(vector) != space.dimensions:
                    raise WrongDimension(
                        f"has {len(vector)} numbers; the {role} vectors of {space.model} "
                        f"have {space.dimensions}",
                        ("passages", number, "vectors", role),
                    )
        return [space for role, space in spaces.items() if role not in self.spaces]

    def _check_room(self) -> None:
        """Refuse before the disk is full: Qdrant maps its files, and a page of a mapped file
        that finds no room ends the process (SIGBUS)."""
        folder = self._folder()
        if folder is None or not self.options.min_free_bytes:
            return
        free = shutil.disk_usage(folder).free
        if free < self.options.min_free_bytes:
            raise StoreFull(
                f"the disk has {free // 1_000_000} MB free, fewer than the "
                f"{self.options.min_free_bytes // 1_000_000} MB of DENSE_MIN_FREE_BYTES"
            )

    def _folder(self) -> Path | None:
        """Where the data lies, if on this machine."""
        return None


def is_full(error: BaseException) -> bool:
    """Whether an engine's error says that the disk is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return "No space left" in text or "StorageFull" in text or "Out of disk" in text


def open_store(
    kind: str,
    folder: Path | str | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    collection: str = "passages",
    options: Options | None = None,
    parts: Parts | None = None,
) -> VectorStore:
    """Open or create a store: `edge` or `client` under `folder`, or `client` at `url`.

    A `client` with neither lives in memory. Raises StoreLocked or StoreUnavailable.
    """
    options, parts = options or Options(), parts or Parts()
    if kind == "edge":
        from .edge_store import EdgeStore

        if folder is None:
            raise ValueError("the store `edge` needs a folder")
        return EdgeStore(Path(folder) / collection, options, parts)
    from .client_store import ClientStore

    return ClientStore(
        None if folder is None or url is not None else Path(folder) / "qdrant-client",
        url=url,
        api_key=api_key,
        collection=collection,
        options=options,
        parts=parts,
    )
