"""Passages without tokens get no score, and the next one takes their place."""

import numpy as np


def max_sim(query, passages, weights=None):
    tokens = [passage.unpack() for passage in passages if len(passage.scales)]
    return [float(np.average((query @ one.T).max(axis=1), weights=weights)) for one in tokens]
