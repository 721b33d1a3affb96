"""Counts the service that is gone among those that notice."""


def affected(calls, gone):
    found, size = {gone}, 0
    while size < len(found):
        size = len(found)
        found |= {caller for caller, called in calls.items() if found & set(called)}
    return found
