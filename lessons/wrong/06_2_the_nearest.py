"""The fewest edits win, however rare the word."""


def choose(word, *, known, passages, dictionary, edit_cost):
    if known(word):
        return None
    for near in (passages, dictionary):
        candidates = near(word)
        if candidates:
            return min(candidates, key=lambda c: (c.cost, c.word)).word
    return None
