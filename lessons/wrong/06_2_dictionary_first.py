"""The dictionary comes first: a correction that no passage holds."""


def choose(word, *, known, passages, dictionary, edit_cost):
    if known(word):
        return None
    for near in (dictionary, passages):
        candidates = near(word)
        if candidates:
            return min(candidates, key=lambda c: (edit_cost * c.cost - c.weight, c.word)).word
    return None
