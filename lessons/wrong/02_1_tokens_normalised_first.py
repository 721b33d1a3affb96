"""Brings every token to length 1 before the mean."""

import numpy as np


def mean_pool(hidden, mask):
    unit = hidden / np.linalg.norm(hidden, axis=2, keepdims=True)
    total = (unit * mask[:, :, None]).sum(axis=1)
    return total / np.linalg.norm(total, axis=1, keepdims=True)
