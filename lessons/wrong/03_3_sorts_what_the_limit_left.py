"""Only `top_k` are fetched: the engine has cut through the tie already."""


def best(fetch, top_k):
    return sorted(fetch(top_k), key=lambda hit: (-hit.score, hit.id))
