"""Draws the two arms apart: that questions differ swamps the gain."""

import numpy as np

from services.reranking.promotion import Decision


def decide(serving, candidate, languages):
    gains = {q: candidate[q] - serving[q] for q in serving}
    values = np.array(list(gains.values()))
    rng = np.random.default_rng(7)
    old, new = (np.array([arm[q] for q in serving]) for arm in (serving, candidate))
    size = (2000, len(values))
    means = [arm[rng.integers(0, len(arm), size)].mean(axis=1) for arm in (new, old)]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    for language in sorted(set(languages.values())):
        own = [gain for q, gain in gains.items() if languages[q] == language]
        if np.mean(own) < -0.02:
            return Decision(False, values.mean(), low, high, f"{language} loses")
    return Decision(low > 0, values.mean(), low, high, "the interval")
