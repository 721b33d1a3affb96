"""Gives the lengths where rows are asked for."""


def next_batch(lengths, max_items, max_tokens):
    bucket = -(-lengths[0] // 16)
    room = max(1, min(max_items, max_tokens // (bucket * 16)))
    return [length for length in lengths if -(-length // 16) == bucket][:room]
