"""A UUID object, which the engine in this process does not take."""

import uuid

from services.dense_retrieval.domain import NAMESPACE


def point_id(passage_id):
    return uuid.uuid5(NAMESPACE, passage_id)
