"""It goes on while the last one ties, also when there are no more."""


def best(fetch, top_k):
    limit = top_k + 8
    hits = fetch(limit)
    while len(hits) > top_k and hits[-1].score == hits[top_k - 1].score:
        limit *= 2
        hits = fetch(limit)
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:top_k]
