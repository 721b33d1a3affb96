"""`failed` is the number of calls, not their share."""

import math


def report(calls, seconds):
    answered = [call for call in calls if call.ok]
    waits = sorted((call.done - call.due) * 1000 for call in answered)
    found = {"per_second": len(answered) / seconds, "failed": len(calls) - len(answered)}
    for percent in (50, 95, 99):
        found[f"p{percent}"] = waits[math.ceil(len(waits) * percent / 100) - 1]
    return found
