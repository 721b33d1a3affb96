"""The dictionary is never asked: everyday words stay misspelled."""


def choose(word, *, known, passages, dictionary, edit_cost):
    candidates = [] if known(word) else passages(word)
    if not candidates:
        return None
    return min(candidates, key=lambda c: (edit_cost * c.cost - c.weight, c.word)).word
