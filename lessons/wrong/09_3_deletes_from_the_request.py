"""Takes the fields out of the request itself."""

import hashlib
import json


def cache_key(asked):
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt"}
    for name in no_matter:
        asked.pop(name, None)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
