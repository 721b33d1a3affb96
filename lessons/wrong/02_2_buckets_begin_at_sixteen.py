"""Divides and rounds down: 16 is put beside 17."""


def next_batch(lengths, max_items, max_tokens):
    bucket = lengths[0] // 16
    room = max(1, min(max_items, max_tokens // ((bucket + 1) * 16)))
    return [row for row, length in enumerate(lengths) if length // 16 == bucket][:room]
