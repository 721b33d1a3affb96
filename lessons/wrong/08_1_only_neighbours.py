"""A text is compared with the one before it only."""

from services.context_aggregation.domain import shingles


def find_duplicates(texts, similarity):
    found = {}
    for place in range(1, len(texts)):
        mine, theirs = shingles(texts[place]), shingles(texts[place - 1])
        shared = len(mine & theirs)
        if shared >= similarity * len(mine | theirs) or shared >= 0.95 * len(mine):
            found[place] = place - 1
    return found
