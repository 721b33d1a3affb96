"""The first word counts, and a change of mind is lost."""


def count_votes(acts):
    said = {}
    for request_id, kind, value in acts:
        if kind == "thumbs":
            said.setdefault(request_id, value == "1")
        elif kind == "stars" and value != "3":
            said.setdefault(request_id, value in ("4", "5"))
        elif kind == "correction":
            said.setdefault(request_id, False)
    return sum(said.values()), len(said) - sum(said.values())
