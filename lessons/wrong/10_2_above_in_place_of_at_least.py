"""A support that just reaches the limit is refused."""


def settle_citations(given, scores, least):
    good = {number: score for number, score in scores.items() if score > least[number]}
    kept = [number for number in dict.fromkeys(given) if number in good]
    if kept or not good:
        return kept
    return [max(good, key=lambda number: (good[number], -number))]
