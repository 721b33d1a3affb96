"""Where no source supports the sentence, the best of them is cited all the same."""


def settle_citations(given, scores, least):
    kept = [n for n in dict.fromkeys(given) if n in scores and scores[n] >= least[n]]
    if kept or not scores:
        return kept
    return [max(scores, key=lambda number: (scores[number], -number))]
