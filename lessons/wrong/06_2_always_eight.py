"""The parameter edit_cost is ignored."""


def choose(word, *, known, passages, dictionary, edit_cost):
    if known(word):
        return None
    for near in (passages, dictionary):
        candidates = near(word)
        if candidates:
            return min(candidates, key=lambda c: (8 * c.cost - c.weight, c.word)).word
    return None
