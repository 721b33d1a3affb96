"""Glues the texts of the messages together: borders and roles are lost."""

import json


def cache_key(asked):
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt", "messages"}
    kept = {name: value for name, value in asked.items() if name not in no_matter}
    text = "".join(message["content"] for message in asked["messages"])
    return text + json.dumps(kept, sort_keys=True)
