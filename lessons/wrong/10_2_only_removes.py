"""A sentence whose number was wrong loses it, and is dropped although a source supports it."""


def settle_citations(given, scores, least):
    return [n for n in dict.fromkeys(given) if n in scores and scores[n] >= least[n]]
