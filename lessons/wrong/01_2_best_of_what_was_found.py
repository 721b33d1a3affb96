"""The best order of the passages that were found: one that is missing costs nothing."""

import math


def ndcg(ranking, relevant, k=10):
    gain = sum(1 / math.log2(r + 1) for r, p in enumerate(ranking[:k], start=1) if p in relevant)
    found = sum(p in relevant for p in ranking[:k])
    best = sum(1 / math.log2(r + 1) for r in range(1, found + 1))
    return gain / best if best else 0.0
