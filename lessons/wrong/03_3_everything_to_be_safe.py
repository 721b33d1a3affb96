"""Ten thousand hits with their texts, for three."""


def best(fetch, top_k):
    return sorted(fetch(10_000), key=lambda hit: (-hit.score, hit.id))[:top_k]
