"""Python's hash of a text differs from process to process."""

import uuid


def point_id(passage_id):
    return str(uuid.UUID(int=hash(passage_id) % 2**128))
