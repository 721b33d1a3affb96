"""Forgets max_items."""


def next_batch(lengths, max_items, max_tokens):
    bucket = -(-lengths[0] // 16)
    room = max(1, max_tokens // (bucket * 16))
    return [row for row, length in enumerate(lengths) if -(-length // 16) == bucket][:room]
