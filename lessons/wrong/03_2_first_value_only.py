"""Only the first value of a field counts."""


def build_filter(qdrant, fields):
    if not fields:
        return None
    return qdrant.Filter(
        must=[
            qdrant.FieldCondition(key=name, match=qdrant.MatchAny(any=[values[0]]))
            for name, values in fields.items()
        ]
    )
