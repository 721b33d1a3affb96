"""Three stars are a bad vote."""


def count_votes(acts):
    said = {}
    for request_id, kind, value in acts:
        if kind == "thumbs":
            said[request_id] = value == "1"
        elif kind == "stars":
            said[request_id] = value in ("4", "5")
        elif kind == "correction":
            said[request_id] = False
    return sum(said.values()), len(said) - sum(said.values())
