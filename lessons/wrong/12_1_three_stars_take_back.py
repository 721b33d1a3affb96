"""Three stars take an earlier vote back."""


def count_votes(acts):
    said = {}
    for request_id, kind, value in acts:
        if kind == "thumbs":
            said[request_id] = value == "1"
        elif kind == "stars":
            said.pop(request_id, None)
            if value != "3":
                said[request_id] = value in ("4", "5")
        elif kind == "correction":
            said[request_id] = False
    return sum(said.values()), len(said) - sum(said.values())
