"""Reads a clock of its own in place of `now`."""

import math
import time


def take_token(bucket, now, *, rate, capacity):
    elapsed = max(0.0, time.monotonic() - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate)
    bucket.at = time.monotonic()
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((1 - bucket.tokens) / rate)
