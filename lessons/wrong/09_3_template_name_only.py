"""Keys by the template as it was written: version None is not always the same."""

import hashlib
import json


def cache_key(asked):
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "messages"}
    kept = {name: value for name, value in asked.items() if name not in no_matter}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
