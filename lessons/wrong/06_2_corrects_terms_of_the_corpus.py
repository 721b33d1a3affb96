"""A known word is not safe: right words become commoner ones."""


def choose(word, *, known, passages, dictionary, edit_cost):
    for near in (passages, dictionary):
        candidates = near(word)
        if candidates:
            return min(candidates, key=lambda c: (edit_cost * c.cost - c.weight, c.word)).word
    return None
