"""A condition for each value: a passage would need every value of a field."""


def build_filter(qdrant, fields):
    if not fields:
        return None
    return qdrant.Filter(
        must=[
            qdrant.FieldCondition(key=name, match=qdrant.MatchAny(any=[value]))
            for name, values in fields.items()
            for value in values
        ]
    )
