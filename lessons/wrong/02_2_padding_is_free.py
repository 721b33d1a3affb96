"""Counts the tokens without their padding."""


def next_batch(lengths, max_items, max_tokens):
    bucket, rows, total = -(-lengths[0] // 16), [], 0
    for row, length in enumerate(lengths):
        if -(-length // 16) == bucket and len(rows) < max_items:
            if rows and total + length > max_tokens:
                break
            rows.append(row)
            total += length
    return rows
