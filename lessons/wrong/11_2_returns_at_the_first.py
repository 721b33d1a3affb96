"""Returns at the first match: the time tells the place of the entry."""

import hashlib
import hmac


def holder_of(key, hashes):
    given = hashlib.sha256(key.encode()).hexdigest()
    for name, expected in hashes.items():
        if hmac.compare_digest(given, expected):
            return name
    return None
