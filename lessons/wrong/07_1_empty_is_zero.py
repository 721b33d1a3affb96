"""A passage without tokens gets 0, which is better than a cosine below 0."""

import numpy as np


def max_sim(query, passages, weights=None):
    scores = []
    for passage in passages:
        tokens = passage.unpack()
        if len(query) and len(tokens):
            best = (query @ tokens.T).max(axis=1)
            scores.append(float(np.average(best, weights=weights)))
        else:
            scores.append(0.0)
    return scores
