"""The interval holds 90 % of the draws."""

import numpy as np

from services.reranking.promotion import Decision


def decide(serving, candidate, languages):
    gains = {q: candidate[q] - serving[q] for q in serving}
    values = np.array(list(gains.values()))
    drawn = np.random.default_rng(7).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [5, 95])
    for language in sorted(set(languages.values())):
        own = [gain for q, gain in gains.items() if languages[q] == language]
        if np.mean(own) < -0.02:
            return Decision(False, values.mean(), low, high, f"{language} loses")
    return Decision(low > 0, values.mean(), low, high, "the interval")
