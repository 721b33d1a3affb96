"""Looks at the mean over all only."""

import numpy as np

from services.reranking.promotion import Decision


def decide(serving, candidate, languages):
    gains = {q: candidate[q] - serving[q] for q in serving}
    values = np.array(list(gains.values()))
    drawn = np.random.default_rng(7).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return Decision(low > 0, values.mean(), low, high, "the interval")
