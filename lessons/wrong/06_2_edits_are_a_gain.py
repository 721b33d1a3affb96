"""The cost is added: the farther, the better."""


def choose(word, *, known, passages, dictionary, edit_cost):
    if known(word):
        return None
    for near in (passages, dictionary):
        candidates = near(word)
        if candidates:
            return max(candidates, key=lambda c: c.weight + edit_cost * c.cost).word
    return None
