"""The gain divided by the number of relevant passages."""

import math


def ndcg(ranking, relevant, k=10):
    gain = sum(1 / math.log2(r + 1) for r, p in enumerate(ranking[:k], start=1) if p in relevant)
    return gain / min(k, len(relevant)) if relevant else 0.0
