"""No votes are taken for the worst: 0 to 0."""

from math import sqrt


def wilson(good, votes, z=1.96):
    if not votes:
        return 0.0, 0.0
    p, whole = good / votes, 1 + z * z / votes
    middle = (p + z * z / (2 * votes)) / whole
    half = z * sqrt(p * (1 - p) / votes + z * z / (4 * votes * votes)) / whole
    return max(0.0, middle - half), min(1.0, middle + half)
