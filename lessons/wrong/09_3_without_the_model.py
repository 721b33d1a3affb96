"""One model's answer is given out as another's."""

import hashlib
import json


def cache_key(asked):
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt", "model"}
    kept = {name: value for name, value in asked.items() if name not in no_matter}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
