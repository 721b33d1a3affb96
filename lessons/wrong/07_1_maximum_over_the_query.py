"""Each passage token looks for its partner, not each query token."""


def max_sim(query, passages, weights=None):
    scores = []
    for passage in passages:
        tokens = passage.unpack()
        if len(query) and len(tokens):
            best = (query @ tokens.T).max(axis=0)
            scores.append(float(best.mean()))
        else:
            scores.append(-1.0)
    return scores
