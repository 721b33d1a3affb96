"""Only thumbs are counted."""


def count_votes(acts):
    said = {}
    for request_id, kind, value in acts:
        if kind == "thumbs":
            said[request_id] = value == "1"
    return sum(said.values()), len(said) - sum(said.values())
