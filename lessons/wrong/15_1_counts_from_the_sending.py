"""Counts from the time a call was sent: what the user waited before it is left out."""

import math


def report(calls, seconds):
    answered = [call for call in calls if call.ok]
    waits = sorted((call.done - call.sent) * 1000 for call in answered)
    found = {"per_second": len(answered) / seconds, "failed": 1 - len(answered) / len(calls)}
    for percent in (50, 95, 99):
        found[f"p{percent}"] = waits[math.ceil(len(waits) * percent / 100) - 1]
    return found
