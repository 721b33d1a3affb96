"""`should`: a passage that matches one of the fields passes."""


def build_filter(qdrant, fields):
    if not fields:
        return None
    return qdrant.Filter(
        should=[
            qdrant.FieldCondition(key=name, match=qdrant.MatchAny(any=list(values)))
            for name, values in fields.items()
        ]
    )
