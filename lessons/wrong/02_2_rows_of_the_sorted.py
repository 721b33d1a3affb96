"""Rows of the sorted list: the order is never restored."""


def next_batch(lengths, max_items, max_tokens):
    bucket = -(-lengths[0] // 16)
    room = max(1, min(max_items, max_tokens // (bucket * 16)))
    rows = [row for row, length in enumerate(sorted(lengths)) if -(-length // 16) == bucket]
    return rows[:room]
