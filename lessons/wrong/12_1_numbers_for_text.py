"""Values are compared as numbers, but they are text."""


def count_votes(acts):
    said = {}
    for request_id, kind, value in acts:
        if kind == "thumbs":
            said[request_id] = value == 1
        elif kind == "stars" and value != 3:
            said[request_id] = value in (4, 5)
        elif kind == "correction":
            said[request_id] = False
    return sum(said.values()), len(said) - sum(said.values())
