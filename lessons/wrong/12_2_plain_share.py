"""The plain share at both ends: one bad vote is a finding."""


def wilson(good, votes, z=1.96):
    if not votes:
        return 0.0, 1.0
    return good / votes, good / votes
