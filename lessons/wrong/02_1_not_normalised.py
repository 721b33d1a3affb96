"""The mean as it is, of any length."""

import numpy as np


def mean_pool(hidden, mask):
    counts = mask[:, :, None]
    return np.asarray((hidden * counts).sum(axis=1) / counts.sum(axis=1))
