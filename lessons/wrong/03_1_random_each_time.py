"""A new random id each time: every upsert is an insert."""

import uuid


def point_id(passage_id):
    return str(uuid.uuid4())
