"""Token vectors of passages: compact, on disk, the ones used last in memory as well."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A passage's token vectors: int8 [tokens, dimension] times float32 scales [tokens].

    A quarter of float32; each component is off by at most half a 254th of the largest in its row.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]

    @classmethod
    def pack(cls, vectors: NDArray[np.float32]) -> TokenVectors:
        if not len(vectors):
            return cls(np.zeros((0, vectors.shape[1]), np.int8), np.zeros(0, np.float32))
        scales = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-12)) / np.float32(127)
        return cls(np.rint(vectors / scales[:, None]).astype(np.int8), scales)

    def unpack(self) -> NDArray[np.float32]:
        return self.values.astype(np.float32) * self.scales[:, None]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes

    def to_bytes(self) -> bytes:
        return self.scales.astype("<f4").tobytes() + self.values.tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes, dimension: int) -> TokenVectors:
        tokens = len(raw) // (4 + dimension)
        scales = np.frombuffer(raw, "<f4", tokens)
        values = np.frombuffer(raw, np.int8, offset=4 * tokens).reshape(tokens, dimension)
        return cls(values, scales)


class PassageStore:
    """Passages by the hash of their text. Safe to use from several threads.

    One file a model (`fingerprint` is part of its name): vectors of two models never meet.
    `memory_bytes` and `disk_bytes` bound what is kept; on disk the oldest go first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        dimension: int,
        memory_bytes: int,
        disk_bytes: int,
    ) -> None:
        self.path = folder / f"token-vectors-{fingerprint}.sqlite"
        self.dimension = dimension
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes
        self._memory: OrderedDict[bytes, TokenVectors] = OrderedDict()
        self._in_memory = 0
        self._lock = threading.Lock()
        self._database = sqlite3.connect(self.path, check_same_thread=False)
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            "CREATE TABLE IF NOT EXISTS passages"
            " (number INTEGER PRIMARY KEY, hash BLOB UNIQUE NOT NULL, vectors BLOB NOT NULL);"
        )
        self._on_disk = int(
            self._database.execute("SELECT total(length(vectors)) FROM passages").fetchone()[0]
        )

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM passages").fetchone()[0])

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The texts whose vectors are not kept, in the order given."""
        with self._lock:
            return [text for text in texts if not self._known(_hash(text))]

    def get(self, texts: Sequence[str]) -> dict[str, TokenVectors]:
        """The vectors of those texts that are kept."""
        found = {}
        with self._lock:
            for text in texts:
                vectors = self._read(_hash(text))
                if vectors is not None:
                    found[text] = vectors
        return found

    def put(self, passages: Mapping[str, TokenVectors]) -> None:
        """Keep the vectors; they are on disk when this returns."""
        if not passages:
            return
        hashed = [(_hash(text), vectors) for text, vectors in passages.items()]
        with self._lock, self._database:
            for key, vectors in hashed:
                done = self._database.execute(
                    "INSERT OR IGNORE INTO passages (hash, vectors) VALUES (?, ?)",
                    (key, vectors.to_bytes()),
                )
                self._on_disk += vectors.nbytes if done.rowcount else 0
                self._remember(key, vectors)
            while self._on_disk > self.disk_bytes:
                self._drop_oldest()

    def _known(self, key: bytes) -> bool:
        if key in self._memory:
            return True
        row = self._database.execute("SELECT 1 FROM passages WHERE hash = ?", (key,)).fetchone()
        return row is not None

    def _read(self, key: bytes) -> TokenVectors | None:
        if (vectors := self._memory.get(key)) is not None:
            self._memory.move_to_end(key)
            return vectors
        row = self._database.execute(
            "SELECT vectors FROM passages WHERE hash = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        vectors = TokenVectors.from_bytes(row[0], self.dimension)
        self._remember(key, vectors)
        return vectors

    def _remember(self, key: bytes, vectors: TokenVectors) -> None:
        if key not in self._memory:
            self._memory[key] = vectors
            self._in_memory += vectors.nbytes
        while self._in_memory > self.memory_bytes and len(self._memory) > 1:
            _, dropped = self._memory.popitem(last=False)
            self._in_memory -= dropped.nbytes

    def _drop_oldest(self) -> None:
        number, key, size = self._database.execute(
            "SELECT number, hash, length(vectors) FROM passages ORDER BY number LIMIT 1"
        ).fetchone()
        self._database.execute("DELETE FROM passages WHERE number = ?", (number,))
        self._on_disk -= size
        if (dropped := self._memory.pop(key, None)) is not None:
            self._in_memory -= dropped.nbytes


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
