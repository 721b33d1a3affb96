"""Paired bootstrap (Efron and Tibshirani, 1993; for retrieval: Sakai, SIGIR 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or a mean difference, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` when the interval of a difference leaves out zero."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "same"


def bootstrap(values: Sequence[float], *, resamples: int = 2000, seed: int = 7) -> Interval:
    """Percentile interval of the mean of per-query `values`.

    For a comparison give the differences query by query: the pairing removes what the two
    systems share, that some questions are hard.
    """
    data = np.asarray(values, np.float64)
    if not data.size:
        return Interval(float("nan"), float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for row in range(resamples):
        means[row] = data[random.integers(0, data.size, data.size)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high))
