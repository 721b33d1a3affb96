"""Takes the rank as the index: the 39th of forty for p95."""


def report(calls, seconds):
    answered = [call for call in calls if call.ok]
    waits = sorted((call.done - call.due) * 1000 for call in answered)
    found = {"per_second": len(answered) / seconds, "failed": 1 - len(answered) / len(calls)}
    for percent in (50, 95, 99):
        found[f"p{percent}"] = waits[min(len(waits) - 1, len(waits) * percent // 100)]
    return found
