"""A word outside the pair counts nothing."""


def share_of_claim(claim, sentences, head):
    best, place = 0.0, 0
    for start in range(max(1, len(sentences) - 1)):
        near = head.union(*sentences[start : start + 2])
        held = sum(weight for word, weight in claim.items() if word in near)
        if held > best:
            best, place = held, start
    return best / sum(claim.values()), place
