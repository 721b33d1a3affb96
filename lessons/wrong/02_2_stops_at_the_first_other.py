"""Stops at the first text of another bucket."""


def next_batch(lengths, max_items, max_tokens):
    bucket = -(-lengths[0] // 16)
    room = max(1, min(max_items, max_tokens // (bucket * 16)))
    rows = []
    for row, length in enumerate(lengths):
        if -(-length // 16) != bucket:
            break
        rows.append(row)
    return rows[:room]
