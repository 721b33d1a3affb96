"""Looks up a number that does not exist."""


def settle_citations(given, scores, least):
    kept = [number for number in dict.fromkeys(given) if scores[number] >= least[number]]
    good = {number: score for number, score in scores.items() if score >= least[number]}
    if kept or not good:
        return kept
    return [max(good, key=lambda number: (good[number], -number))]
