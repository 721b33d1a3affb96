"""Checks the upper end only: [0] is taken for a source."""


def settle_citations(given, scores, least):
    good = {number: score for number, score in scores.items() if score >= least[number]}
    if not good:
        return []
    wrong = {number for number in scores if number not in good}
    kept = [n for n in dict.fromkeys(given) if n <= max(scores) and n not in wrong]
    return kept or [max(good, key=lambda number: (good[number], -number))]
