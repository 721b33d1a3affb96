"""Overrules the model where it was right."""


def settle_citations(given, scores, least):
    good = {number: score for number, score in scores.items() if score >= least[number]}
    return sorted(good, key=lambda number: (-good[number], number))[:1]
