"""The share is taken of the sum of all stages, which counts parallel stages twice."""


def slowest(timings):
    longest = max(timings, key=lambda stage: stage["ms"])
    return longest["stage"], longest["ms"] / sum(stage["ms"] for stage in timings)
