"""Word frequencies of English and Portuguese, small enough to keep in every process.

The lists are pyspellchecker's (577,000 words). As Python dictionaries they take 90 MB; as sorted
64-bit hashes beside one byte of frequency they take 5 MB.
"""

from __future__ import annotations

import gzip
import json
import math
import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt

LANGUAGES = ("en", "pt")
_STEPS = 8  # steps of the stored frequency per doubling


class Lexicon:
    """How often a word occurs in a language, as the base-2 logarithm of its share of all words."""

    def __init__(self, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        self._hashes = {code: arrays[f"{code}_hashes"].astype(np.uint64) for code in LANGUAGES}
        self._counts = {code: arrays[f"{code}_counts"].astype(np.uint8) for code in LANGUAGES}
        self._total = {code: float(arrays[f"{code}_total"]) for code in LANGUAGES}
        self._known: dict[tuple[str, str], float | None] = {}

    @classmethod
    def load(cls, cache: Path | None = None) -> Lexicon:
        """From the file `cache`, made on first use; without it, built in this process.

        The file is made by another process, because the memory that building takes would stay
        with this one.
        """
        if cache is None:
            return cls(build())
        name = f"lexicon-1-{version('pyspellchecker')}.npz"
        file = cache / name
        if not file.exists():
            subprocess.run([sys.executable, "-m", __name__, str(file)], check=True)
        with np.load(file) as arrays:
            return cls(dict(arrays))

    def frequency(self, word: str, language: str) -> float | None:
        """log2 of the share of `word` (lower case) among all words; None if unknown."""
        key = (word, language)
        if key not in self._known:
            if len(self._known) > 50_000:
                self._known.clear()
            found = self.frequencies([word], language)[0]
            self._known[key] = None if math.isnan(found) else found
        return self._known[key]

    def frequencies(self, words: Sequence[str], language: str) -> list[float]:
        """The same for many words at once; NaN stands for unknown."""
        asked = np.fromiter((_hash(word) for word in words), np.uint64, len(words))
        hashes = self._hashes[language]
        places = np.minimum(np.searchsorted(hashes, asked), len(hashes) - 1)
        shares = self._counts[language][places] / _STEPS - self._total[language]
        found: list[float] = np.where(hashes[places] == asked, shares, np.nan).tolist()
        return found


def _hash(word: str) -> int:
    """64 bits, the same in every process (Python's own `hash` is not)."""
    raw = word.encode()
    return crc32(raw) << 32 | crc32(raw[::-1])


def build() -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of a `Lexicon` out of pyspellchecker's word lists."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for code in LANGUAGES:
        raw = pkgutil.get_data("spellchecker", f"resources/{code}.json.gz")
        if raw is None:
            raise RuntimeError(f"pyspellchecker brings no word list for {code}")
        counts: dict[str, int] = json.loads(gzip.decompress(raw))
        hashes = np.fromiter((_hash(word) for word in counts), np.uint64, len(counts))
        levels = np.log2(np.fromiter(counts.values(), np.float64, len(counts))) * _STEPS
        order = np.argsort(hashes, kind="stable")
        arrays[f"{code}_hashes"] = hashes[order]
        arrays[f"{code}_counts"] = np.round(levels).astype(np.uint8)[order]
        arrays[f"{code}_total"] = np.array(math.log2(sum(counts.values())))
    return arrays


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.npz")
    np.savez(partial, **build())  # type: ignore[arg-type]
    partial.replace(target)
