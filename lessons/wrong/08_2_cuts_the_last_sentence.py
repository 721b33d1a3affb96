"""What does not fit is cut to the room that is left, in the middle of a sentence."""

from dataclasses import replace

from services.context_aggregation.domain import Counted


def fit(pieces, budget, *, write, count):
    chosen = []
    for piece in pieces:
        if count(write([*chosen, piece])) <= budget:
            chosen.append(piece)
            continue
        left = budget - count(write(chosen))
        words = piece.parts[piece.place].text.split()[: max(0, left - piece.head.tokens)]
        if words:
            short = {piece.place: Counted(" ".join(words), count)}
            chosen.append(replace(piece, parts=short))
        break
    return chosen
