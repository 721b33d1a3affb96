"""Follows what the service calls, in place of what calls it."""


def affected(calls, gone):
    found, todo = set(), list(calls.get(gone, []))
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += calls.get(name, [])
    return found
