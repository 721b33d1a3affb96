"""Words from all over the source are put together to any claim."""


def share_of_claim(claim, sentences, head):
    everywhere = head.union(*sentences)
    held = sum(weight for word, weight in claim.items() if word in everywhere)
    return held / sum(claim.values()), 0
