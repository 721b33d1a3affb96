"""A sentence is taken without the one that it leans on."""

from dataclasses import replace


def fit(pieces, budget, *, write, count):
    chosen, taken, spent = [], {}, 0
    for piece in pieces:
        have = taken.setdefault(piece.passage, set())
        new = [text.tokens for place, text in piece.parts.items() if place not in have]
        cost = sum(new) + (0 if have else piece.head.tokens)
        if piece.place not in have and spent + cost <= budget:
            chosen.append(replace(piece, parts={piece.place: piece.parts[piece.place]}))
            have.add(piece.place)
            spent += cost
    while chosen and count(write(chosen)) > budget:
        chosen.pop()
    return chosen
