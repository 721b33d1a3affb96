"""The section is cut off: the sections of a page replace one another."""

import uuid

from services.dense_retrieval.domain import NAMESPACE


def point_id(passage_id):
    return str(uuid.uuid5(NAMESPACE, passage_id.split("#")[0]))
