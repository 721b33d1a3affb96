"""Fails on a key with a character beyond ASCII: an error 500 for everybody to cause."""

import hashlib
import hmac


def holder_of(key, hashes):
    given = hashlib.sha256(key.encode("ascii")).hexdigest()
    found = None
    for name, expected in hashes.items():
        if hmac.compare_digest(given, expected):
            found = name
    return found
