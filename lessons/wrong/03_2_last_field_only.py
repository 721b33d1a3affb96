"""Each field takes the place of the one before it."""


def build_filter(qdrant, fields):
    found = None
    for name, values in fields.items():
        condition = qdrant.FieldCondition(key=name, match=qdrant.MatchAny(any=list(values)))
        found = qdrant.Filter(must=[condition])
    return found
