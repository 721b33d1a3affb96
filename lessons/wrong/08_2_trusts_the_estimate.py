"""The finished text is never counted."""


def fit(pieces, budget, *, write, count):
    chosen, taken, spent = [], {}, 0
    for piece in pieces:
        have = taken.setdefault(piece.passage, set())
        new = [text.tokens for place, text in piece.parts.items() if place not in have]
        cost = sum(new) + (0 if have else piece.head.tokens)
        if piece.place not in have and spent + cost <= budget:
            chosen.append(piece)
            have.update(piece.parts)
            spent += cost
    return chosen
