"""The classes of one engine, whatever the caller hands over."""

from qdrant_client import models


def build_filter(qdrant, fields):
    if not fields:
        return None
    return models.Filter(
        must=[
            models.FieldCondition(key=name, match=models.MatchAny(any=list(values)))
            for name, values in fields.items()
        ]
    )
