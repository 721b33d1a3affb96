"""The later text is kept and the earlier one dropped."""

from services.context_aggregation.domain import shingles


def find_duplicates(texts, similarity):
    found, kept = {}, {}
    for place, text in enumerate(texts):
        mine = shingles(text)
        for earlier, theirs in kept.items():
            shared = len(mine & theirs)
            if shared >= similarity * len(mine | theirs) or shared >= 0.95 * len(mine):
                found[earlier] = place
        kept[place] = mine
    return found
