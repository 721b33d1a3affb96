"""The words of the indexed passages: what a correction should lead to."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import orjson

from .text import fold

_MOST_TERMS = 200_000


class Vocabulary:
    """Words (lower case, as written) with the number of passages that hold each."""

    def __init__(self, terms: Mapping[str, int] | None = None, etag: str | None = None) -> None:
        kept = dict(terms or {})
        if len(kept) > _MOST_TERMS:
            kept = dict(sorted(kept.items(), key=lambda item: -item[1])[:_MOST_TERMS])
        self.terms = kept
        self.etag = etag
        self._folded: dict[str, str] = {}
        self._by_length: dict[int, list[str]] = defaultdict(list)
        for word, count in kept.items():
            if not word.isalpha():
                continue
            plain = fold(word)
            best = self._folded.get(plain)
            if best is None:
                self._by_length[len(plain)].append(plain)
            if best is None or count > kept[best]:
                self._folded[plain] = word

    def __len__(self) -> int:
        return len(self.terms)

    def __contains__(self, word: str) -> bool:
        return word in self.terms

    def count(self, word: str) -> int:
        """Passages that hold `word` (lower case)."""
        return self.terms.get(word, 0)

    def as_written(self, folded: str) -> str | None:
        """The most frequent word that is `folded` without its accents."""
        return self._folded.get(folded)

    def near_length(self, length: int, distance: int) -> list[str]:
        """Folded words whose length differs by at most `distance`."""
        found: list[str] = []
        for size in range(length - distance, length + distance + 1):
            found += self._by_length.get(size, ())
        return found

    def weight(self, word: str) -> float:
        """log2 of one more than the number of passages that hold `word`."""
        return math.log2(1 + self.terms.get(word, 0))

    def save(self, file: Path) -> None:
        """Write to `file`, whole or not at all."""
        partial = file.with_suffix(".partial")
        partial.write_bytes(orjson.dumps({"etag": self.etag, "terms": self.terms}))
        os.replace(partial, file)

    @classmethod
    def read(cls, file: Path) -> Vocabulary:
        """What `save` wrote; empty when there is nothing readable."""
        try:
            kept = orjson.loads(file.read_bytes())
            return cls(kept["terms"], kept["etag"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
