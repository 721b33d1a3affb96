"""Takes the stage that started last for the slowest."""


def slowest(timings):
    last = max(timings, key=lambda stage: stage["start_ms"])
    end = max(stage["start_ms"] + stage["ms"] for stage in timings)
    return last["stage"], last["ms"] / end
