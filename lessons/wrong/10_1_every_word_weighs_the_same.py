"""Counts words, so that "a thing" weighs as much as a name."""


def share_of_claim(claim, sentences, head):
    everywhere = head.union(*sentences)
    best, place = 0.0, 0
    for start in range(max(1, len(sentences) - 1)):
        near = head.union(*sentences[start : start + 2])
        held = sum(1.0 if word in near else 0.5 if word in everywhere else 0.0 for word in claim)
        if held > best:
            best, place = held, start
    return best / len(claim), place
