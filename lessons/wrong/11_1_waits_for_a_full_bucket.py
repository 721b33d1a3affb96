"""The wait is that for a full bucket, not for one token."""

import math


def take_token(bucket, now, *, rate, capacity):
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate)
    bucket.at += elapsed
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((capacity - bucket.tokens) / rate)
