"""Compares with the best score, not with that of the last place: a tie at the cut is missed."""


def best(fetch, top_k):
    limit = top_k + 1
    while True:
        hits = fetch(limit)
        if len(hits) < limit or hits[-1].score < hits[0].score:
            break
        limit *= 2
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:top_k]
