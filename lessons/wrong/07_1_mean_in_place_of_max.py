"""The mean over all pairs of tokens."""

import numpy as np


def max_sim(query, passages, weights=None):
    scores = []
    for passage in passages:
        tokens = passage.unpack()
        if len(query) and len(tokens):
            best = (query @ tokens.T).mean(axis=1)
            scores.append(float(np.average(best, weights=weights)))
        else:
            scores.append(-1.0)
    return scores
