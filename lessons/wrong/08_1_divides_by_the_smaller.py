"""Shared triples are divided by the smaller set, not by the union."""

from services.context_aggregation.domain import shingles


def find_duplicates(texts, similarity):
    found, kept = {}, {}
    for place, text in enumerate(texts):
        mine = shingles(text)
        for earlier, theirs in kept.items():
            shared = len(mine & theirs)
            if shared >= similarity * min(len(mine), len(theirs)):
                found.setdefault(place, earlier)
        if place not in found:
            kept[place] = mine
    return found
