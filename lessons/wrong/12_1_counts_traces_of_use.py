"""Traces of use are counted: a question asked again as bad, an opened citation as good."""


def count_votes(acts):
    said = {}
    for request_id, kind, value in acts:
        if kind == "thumbs":
            said[request_id] = value == "1"
        elif kind == "stars" and value != "3":
            said[request_id] = value in ("4", "5")
        elif kind in ("correction", "question_reasked"):
            said[request_id] = False
        elif kind in ("citation_opened", "answer_copied"):
            said[request_id] = True
    return sum(said.values()), len(said) - sum(said.values())
