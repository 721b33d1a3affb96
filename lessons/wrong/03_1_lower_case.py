"""Two passages whose ids differ in case share a point."""

import uuid

from services.dense_retrieval.domain import NAMESPACE


def point_id(passage_id):
    return str(uuid.uuid5(NAMESPACE, passage_id.lower()))
