"""Asking several lists at once, and fusing them. No web framework, no network: ids in, ids out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list put a passage: rank from 1, and that list's own score."""

    rank: int
    score: float


@dataclass(slots=True)
class Fused:
    """A passage id with its fused score and its place in each list that had it."""

    id: str
    score: float = 0.0
    provenance: dict[str, Place] = field(default_factory=dict)


def reciprocal_rank_fusion(
    lists: Mapping[str, Sequence[tuple[str, float]]],
    *,
    weights: Mapping[str, float] | None = None,
    k: float = 60.0,
) -> list[Fused]:
    """Weighted reciprocal rank fusion, best first.

    `lists` maps a list's name to its (id, score) pairs, best first. A passage scores
    `sum(weight / (k + rank))` over the lists that hold it, rank from 1 (Cormack, Clarke and
    Büttcher, SIGIR 2009, who use k = 60). Scores themselves are not compared: a cosine and a
    BM25 score have no common scale. Ties keep the order of the id, so that two runs agree.
    """
    fused: dict[str, Fused] = {}
    for name, ranked in lists.items():
        weight = 1.0 if weights is None else weights.get(name, 0.0)
        if weight == 0.0:
            continue
        for rank, (passage_id, score) in enumerate(ranked, start=1):
            item = fused.setdefault(passage_id, Fused(passage_id))
            item.score += weight / (k + rank)
            item.provenance[name] = Place(rank, score)
    return sorted(fused.values(), key=lambda item: (-item.score, item.id))


async def ask_together(
    ask: Callable[[str], Awaitable[T]], names: Sequence[str]
) -> dict[str, T | BaseException]:
    """`ask(name)` of every name at once: its answer, or the exception that it raised.

    Takes as long as the slowest. One that fails does not spoil the others; what its failure
    means is for the caller to say.
    """
    answers = await asyncio.gather(*(ask(name) for name in names), return_exceptions=True)
    return dict(zip(names, answers, strict=True))
