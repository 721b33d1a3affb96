"""Divides by zero without votes."""

from math import sqrt


def wilson(good, votes, z=1.96):
    p, whole = good / votes, 1 + z * z / votes
    middle = (p + z * z / (2 * votes)) / whole
    half = z * sqrt(p * (1 - p) / votes + z * z / (4 * votes * votes)) / whole
    return max(0.0, middle - half), min(1.0, middle + half)
