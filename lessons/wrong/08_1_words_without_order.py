"""Single words are compared: their order does not count."""


def find_duplicates(texts, similarity):
    found, kept = {}, {}
    for place, text in enumerate(texts):
        mine = set(text.split())
        for earlier, theirs in kept.items():
            shared = len(mine & theirs)
            if shared >= similarity * len(mine | theirs) or shared >= 0.95 * len(mine):
                found.setdefault(place, earlier)
        if place not in found:
            kept[place] = mine
    return found
