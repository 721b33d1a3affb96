"""Divides by zero where nothing is relevant."""

import math


def ndcg(ranking, relevant, k=10):
    gain = sum(1 / math.log2(r + 1) for r, p in enumerate(ranking[:k], start=1) if p in relevant)
    best = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(relevant)) + 1))
    return gain / best
