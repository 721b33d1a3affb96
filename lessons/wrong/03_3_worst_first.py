"""The lowest score first."""


def best(fetch, top_k):
    limit = top_k + 8
    while True:
        hits = fetch(limit)
        if len(hits) < limit or hits[-1].score < hits[top_k - 1].score:
            break
        limit *= 2
    return sorted(hits, key=lambda hit: (hit.score, hit.id))[:top_k]
