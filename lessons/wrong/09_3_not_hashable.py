"""Returns the dictionary itself, which no cache can look up."""


def cache_key(asked):
    if asked["temperature"] > 0:
        return None
    no_matter = {"request_id", "user", "stream", "stream_options", "prompt"}
    return {name: value for name, value in asked.items() if name not in no_matter}
