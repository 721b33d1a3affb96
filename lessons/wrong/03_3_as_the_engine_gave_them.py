"""Ties stay in the engine's order."""


def best(fetch, top_k):
    return list(fetch(top_k))
