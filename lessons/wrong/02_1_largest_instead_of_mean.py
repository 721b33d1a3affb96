"""The largest value of each dimension instead of the mean."""

import numpy as np


def mean_pool(hidden, mask):
    largest = np.where(mask[:, :, None] == 1, hidden, -np.inf).max(axis=1)
    return largest / np.linalg.norm(largest, axis=1, keepdims=True)
