"""Only the best pair of all."""


def max_sim(query, passages, weights=None):
    scores = []
    for passage in passages:
        tokens = passage.unpack()
        if len(query) and len(tokens):
            scores.append(float((query @ tokens.T).max()))
        else:
            scores.append(-1.0)
    return scores
