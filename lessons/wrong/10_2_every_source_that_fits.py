"""A sentence without a number gets all sources that support it."""


def settle_citations(given, scores, least):
    good = [number for number, score in scores.items() if score >= least[number]]
    return [number for number in dict.fromkeys(given) if number in good] or sorted(good)
