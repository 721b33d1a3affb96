"""BM25 as a formula (Robertson and Zaragoza, 2009), and an index scored by functions of one's own.

tantivy scores by itself, in Rust, and that is the service's way. A `Scorer` shows every step: the
index says which passages hold a word, how often and how long they are, and two functions make a
score of it. With the functions of this module the scores are tantivy's, but for its 32-bit
rounding; a search takes longer.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tantivy
from tantivy import Query

from .analysis import FIELDS, analyzer

K1 = 1.2
B = 0.75

Idf = Callable[[int, int], float]
"""(passages in all, passages that hold the word) → weight of the word."""
Frequency = Callable[[int, int, float], float]
"""(occurrences in the passage, its length, the average length) → factor of the passage."""
Word = tuple[tuple[str, str], ...]
"""A word of a query as (index field, term) pairs; it counts where it scores best."""

_PASSAGES_KEPT = 20_000
_EXACT = 24


def inverse_document_frequency(passages: int, holding: int) -> float:
    """ln(1 + (N − n + 0.5) / (n + 0.5)): above zero, and the higher the fewer hold the word."""
    return math.log(1 + (passages - holding + 0.5) / (holding + 0.5))


def term_frequency(
    count: int, length: int, average: float, *, k1: float = K1, b: float = B
) -> float:
    """count·(k1 + 1) / (count + k1·(1 − b + b·length / average)), from 0 to k1 + 1.

    `k1` says how soon more occurrences stop to count, `b` how much a long passage has to pay.
    """
    return count * (k1 + 1) / (count + k1 * (1 - b + b * length / average))


def stored_length(length: int) -> int:
    """A length as the index keeps it, in one byte: exact up to 40, then four leading bits.

    tantivy and Lucene do so (`SmallFloat.intToByte4`); the rounding is down, by at most an eighth.
    """
    over = length - _EXACT
    if over < 16:
        return length
    shift = over.bit_length() - 4
    return _EXACT + (over >> shift << shift)


@dataclass(frozen=True, slots=True)
class _Statistics:
    """What the index says of one term: passages in all, those that hold it, average length."""

    passages: int
    holding: int
    average: float


class Scorer:
    """Scores found passages by an `idf` and a `frequency` of one's own."""

    def __init__(
        self, idf: Idf = inverse_document_frequency, frequency: Frequency = term_frequency
    ) -> None:
        self._idf, self._frequency = idf, frequency
        self._analyzers = {name: analyzer(name) for fields in FIELDS.values() for name in fields}
        # A passage is analysed when a query first meets it, and again only after it has changed.
        self._counts = lru_cache(_PASSAGES_KEPT)(self._count)

    def scores(
        self,
        searcher: tantivy.Searcher,
        schema: tantivy.Schema,
        analyses: Sequence[Mapping[Word, int]],
        texts: Sequence[str],
    ) -> list[float]:
        """The score of each passage, given by its indexed text: the best over the `analyses`.

        An analysis maps the words of the query to how often each is in it. A score is the sum
        over the words; a word has the best of its terms.
        """
        terms = {term for words in analyses for word in words for term in word}
        weights: dict[tuple[str, str], tuple[float, float]] = {}
        for field, term in terms:
            found = _statistics(searcher, schema, field, term)
            if found is not None:
                idf = self._idf(found.passages, found.holding)
                weights[field, term] = (idf, found.average)
        return [
            max(self._sum(words, weights, self._counts(text)) for words in analyses)
            for text in texts
        ]

    def _sum(
        self,
        words: Mapping[Word, int],
        weights: Mapping[tuple[str, str], tuple[float, float]],
        counts: Mapping[str, tuple[Counter[str], int]],
    ) -> float:
        total = 0.0
        for word, times in words.items():
            best = 0.0
            for field, term in word:
                counted, length = counts[field]
                if (field, term) in weights and counted[term]:
                    idf, average = weights[field, term]
                    best = max(best, idf * self._frequency(counted[term], length, average))
            total += times * best
        return total

    def _count(self, text: str) -> dict[str, tuple[Counter[str], int]]:
        """Terms of a passage with their occurrences, and its length, by index field."""
        analysed = {name: each.analyze(text) for name, each in self._analyzers.items()}
        return {
            name: (Counter(terms), stored_length(len(terms))) for name, terms in analysed.items()
        }


def _statistics(
    searcher: tantivy.Searcher, schema: tantivy.Schema, field: str, term: str
) -> _Statistics | None:
    """From the engine's explanation of one score: no other call tells the average length."""
    query = Query.term_query(schema, field, term, "freq")
    found = searcher.search(query, 1, count=False).hits
    if not found:
        return None
    values = dict(_explained(json.loads(query.explain(searcher, found[0][1]).to_json())))
    return _Statistics(int(values["N"]), int(values["n"]), values["avgdl"])


def _explained(node: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(name, value) of every part of an explanation: `N`, `n`, `freq`, `dl`, `avgdl`, …"""
    own = [(str(node["description"]).split(",")[0], float(node["value"]))]
    return own + [pair for part in node.get("details") or [] for pair in _explained(part)]
