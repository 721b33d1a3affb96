"""Stops at the direct callers."""


def affected(calls, gone):
    return {caller for caller, called in calls.items() if gone in called}
