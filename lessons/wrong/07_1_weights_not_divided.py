"""Multiplied by the weights, divided by the number of tokens."""


def max_sim(query, passages, weights=None):
    scores = []
    for passage in passages:
        tokens = passage.unpack()
        if len(query) and len(tokens):
            best = (query @ tokens.T).max(axis=1)
            scores.append(float((best if weights is None else best * weights).mean()))
        else:
            scores.append(-1.0)
    return scores
