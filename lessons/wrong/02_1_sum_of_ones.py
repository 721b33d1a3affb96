"""Divides by the sum of the values, not by the length."""

import numpy as np


def mean_pool(hidden, mask):
    mean = (hidden * mask[:, :, None]).sum(axis=1)
    return mean / np.abs(mean).sum(axis=1, keepdims=True)
