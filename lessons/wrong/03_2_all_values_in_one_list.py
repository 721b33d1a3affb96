"""One condition on the first field, with the values of all."""


def build_filter(qdrant, fields):
    if not fields:
        return None
    every = [value for values in fields.values() for value in values]
    first = next(iter(fields))
    condition = qdrant.FieldCondition(key=first, match=qdrant.MatchAny(any=every))
    return qdrant.Filter(must=[condition])
