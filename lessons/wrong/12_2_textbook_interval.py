"""The textbook's interval: no width for one vote, and beyond 1 for many."""

from math import sqrt


def wilson(good, votes, z=1.96):
    if not votes:
        return 0.0, 1.0
    p = good / votes
    half = z * sqrt(p * (1 - p) / votes)
    return p - half, p + half
