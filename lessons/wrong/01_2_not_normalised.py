"""The gain, not divided by the best that is possible."""

import math


def ndcg(ranking, relevant, k=10):
    return sum(1 / math.log2(r + 1) for r, p in enumerate(ranking[:k], start=1) if p in relevant)
