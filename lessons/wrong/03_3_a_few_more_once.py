"""A few more are fetched, but once: a longer tie is still cut."""


def best(fetch, top_k):
    return sorted(fetch(top_k + 8), key=lambda hit: (-hit.score, hit.id))[:top_k]
