"""A number that exists is taken for right, whatever its source says."""


def settle_citations(given, scores, least):
    good = {number: score for number, score in scores.items() if score >= least[number]}
    kept = [number for number in dict.fromkeys(given) if number in scores]
    if kept or not good:
        return kept
    return [max(good, key=lambda number: (good[number], -number))]
