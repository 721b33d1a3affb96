"""Sorted from the lowest score."""

from services.hybrid_search.domain import Fused, Place


def reciprocal_rank_fusion(lists, *, weights=None, k=60.0):
    fused = {}
    for name, ranked in lists.items():
        weight = 1.0 if weights is None else weights.get(name, 0.0)
        for rank, (passage, score) in enumerate(ranked if weight else [], start=1):
            item = fused.setdefault(passage, Fused(passage))
            item.score += weight / (k + rank)
            item.provenance[name] = Place(rank, score)
    return sorted(fused.values(), key=lambda item: (item.score, item.id))
