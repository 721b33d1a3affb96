"""Nothing near is not thought of."""


def choose(word, *, known, passages, dictionary, edit_cost):
    if known(word):
        return None
    candidates = passages(word) or dictionary(word)
    return min(candidates, key=lambda c: (edit_cost * c.cost - c.weight, c.word)).word
