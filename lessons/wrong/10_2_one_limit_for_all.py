"""The limit of the answer's language is used for all sources, and figures are forgotten."""


def settle_citations(given, scores, least):
    good = {number: score for number, score in scores.items() if score >= 0.5}
    kept = [number for number in dict.fromkeys(given) if number in good]
    if kept or not good:
        return kept
    return [max(good, key=lambda number: (good[number], -number))]
