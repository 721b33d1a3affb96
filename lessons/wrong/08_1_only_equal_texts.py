"""Only texts that are exactly equal count."""


def find_duplicates(texts, similarity):
    found, first = {}, {}
    for place, text in enumerate(texts):
        if text in first:
            found[place] = first[text]
        else:
            first[text] = place
    return found
