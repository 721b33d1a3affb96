"""Version 3, by MD5: stable, but not the ids on disk."""

import uuid

from services.dense_retrieval.domain import NAMESPACE


def point_id(passage_id):
    return str(uuid.uuid3(NAMESPACE, passage_id))
