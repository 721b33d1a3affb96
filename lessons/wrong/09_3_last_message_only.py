"""Keys by the question: the instructions and the version of the prompt are missing."""

import json


def cache_key(asked):
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt", "messages"}
    kept = {name: value for name, value in asked.items() if name not in no_matter}
    return json.dumps([kept, asked["messages"][-1]], sort_keys=True)
