"""Lets the hash in, too, for convenience."""

import hashlib
import hmac


def holder_of(key, hashes):
    given = hashlib.sha256(key.encode()).hexdigest()
    found = None
    for name, expected in hashes.items():
        right = hmac.compare_digest(given, expected)
        if right | hmac.compare_digest(key.encode(), expected.encode()):
            found = name
    return found
