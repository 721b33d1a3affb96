"""Both lists in one: weights of passages and of a whole language are compared."""


def choose(word, *, known, passages, dictionary, edit_cost):
    if known(word):
        return None
    candidates = [*passages(word), *dictionary(word)]
    if not candidates:
        return None
    return min(candidates, key=lambda c: (edit_cost * c.cost - c.weight, c.word)).word
