"""The most common word wins, however far it is."""


def choose(word, *, known, passages, dictionary, edit_cost):
    if known(word):
        return None
    for near in (passages, dictionary):
        candidates = near(word)
        if candidates:
            return min(candidates, key=lambda c: (-c.weight, c.word)).word
    return None
