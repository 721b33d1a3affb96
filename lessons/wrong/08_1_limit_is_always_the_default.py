"""The parameter similarity is ignored."""

from services.context_aggregation.domain import shingles


def find_duplicates(texts, similarity):
    found, kept = {}, {}
    for place, text in enumerate(texts):
        mine = shingles(text)
        for earlier, theirs in kept.items():
            shared = len(mine & theirs)
            if shared >= 0.8 * len(mine | theirs) or shared >= 0.95 * len(mine):
                found.setdefault(place, earlier)
        if place not in found:
            kept[place] = mine
    return found
