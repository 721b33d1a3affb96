"""Compares the first digits only: another key may have the same."""

import hashlib
import hmac


def holder_of(key, hashes):
    given = hashlib.sha256(key.encode()).hexdigest()
    found = ""
    for name, expected in hashes.items():
        if hmac.compare_digest(given[:8], expected[:8]):
            found = name
    return found
