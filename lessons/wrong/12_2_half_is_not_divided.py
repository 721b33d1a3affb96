"""Only the middle is divided by 1 + z²/n."""

from math import sqrt


def wilson(good, votes, z=1.96):
    if not votes:
        return 0.0, 1.0
    p, whole = good / votes, 1 + z * z / votes
    middle = (p + z * z / (2 * votes)) / whole
    half = z * sqrt(p * (1 - p) / votes + z * z / (4 * votes * votes))
    return max(0.0, middle - half), min(1.0, middle + half)
