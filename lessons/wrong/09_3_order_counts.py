"""The order of the fields changes the key."""

import hashlib
import json


def cache_key(asked):
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt"}
    kept = {name: value for name, value in asked.items() if name not in no_matter}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()
