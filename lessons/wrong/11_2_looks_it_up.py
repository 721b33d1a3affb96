"""Turns the dictionary round and looks the hash up."""

import hashlib


def holder_of(key, hashes):
    given = hashlib.sha256(key.encode()).hexdigest()
    return {expected: name for name, expected in hashes.items()}.get(given)
