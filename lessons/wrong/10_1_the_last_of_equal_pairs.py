"""Of equal pairs the last, so that the place points away from where the claim comes from."""


def share_of_claim(claim, sentences, head):
    everywhere = head.union(*sentences)
    best, place = 0.0, 0
    for start in range(max(1, len(sentences) - 1)):
        near = head.union(*sentences[start : start + 2])
        worth = {word: 1.0 if word in near else 0.5 for word in everywhere}
        held = sum(weight * worth.get(word, 0.0) for word, weight in claim.items())
        if held >= best:
            best, place = held, start
    return best / sum(claim.values()), place
