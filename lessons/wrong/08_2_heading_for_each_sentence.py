"""Every sentence pays the heading of its passage again."""


def fit(pieces, budget, *, write, count):
    chosen, taken, spent = [], {}, 0
    for piece in pieces:
        have = taken.setdefault(piece.passage, set())
        new = [text.tokens for place, text in piece.parts.items() if place not in have]
        cost = sum(new) + piece.head.tokens
        if piece.place not in have and spent + cost <= budget:
            chosen.append(piece)
            have.update(piece.parts)
            spent += cost
    while chosen and count(write(chosen)) > budget:
        chosen.pop()
    return chosen
