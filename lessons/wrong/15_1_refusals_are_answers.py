"""Counts refusals as answers: a service that refuses all is the quickest."""

import math


def report(calls, seconds):
    waits = sorted((call.done - call.due) * 1000 for call in calls)
    found = {
        "per_second": len(calls) / seconds,
        "failed": sum(not call.ok for call in calls) / len(calls),
    }
    for percent in (50, 95, 99):
        found[f"p{percent}"] = waits[math.ceil(len(waits) * percent / 100) - 1]
    return found
