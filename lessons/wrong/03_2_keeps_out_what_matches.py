"""`must_not`: what matches is left out."""


def build_filter(qdrant, fields):
    if not fields:
        return None
    return qdrant.Filter(
        must_not=[
            qdrant.FieldCondition(key=name, match=qdrant.MatchAny(any=list(values)))
            for name, values in fields.items()
        ]
    )
