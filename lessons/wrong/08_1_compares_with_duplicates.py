"""A duplicate of a duplicate is dropped, however far it is from what stays."""

from services.context_aggregation.domain import shingles


def find_duplicates(texts, similarity):
    found, kept = {}, {}
    for place, text in enumerate(texts):
        mine = shingles(text)
        for earlier, theirs in kept.items():
            shared = len(mine & theirs)
            if shared >= similarity * len(mine | theirs) or shared >= 0.95 * len(mine):
                found.setdefault(place, earlier)
        kept[place] = mine
    return found
