"""Every click is a vote: an angry reader counts four times."""


def count_votes(acts):
    good = bad = 0
    for _, kind, value in acts:
        if kind == "thumbs":
            good += value == "1"
            bad += value == "-1"
        elif kind == "stars" and value != "3":
            good += value in ("4", "5")
            bad += value in ("1", "2")
        elif kind == "correction":
            bad += 1
    return good, bad
