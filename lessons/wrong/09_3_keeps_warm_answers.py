"""Keeps answers that may differ the next time."""

import hashlib
import json


def cache_key(asked):
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt"}
    kept = {name: value for name, value in asked.items() if name not in no_matter}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
