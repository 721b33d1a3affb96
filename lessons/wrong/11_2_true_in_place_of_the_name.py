"""Says that the key is known, not whose it is: all callers share one quota."""

import hashlib
import hmac


def holder_of(key, hashes):
    given = hashlib.sha256(key.encode()).hexdigest()
    matches = [hmac.compare_digest(given, expected) for expected in hashes.values()]
    return True if any(matches) else None
