"""Any part of a token lets a request through."""

import math


def take_token(bucket, now, *, rate, capacity):
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate)
    bucket.at += elapsed
    if bucket.tokens > 0:
        bucket.tokens = max(0.0, bucket.tokens - 1)
        return 0
    return math.ceil((1 - bucket.tokens) / rate)
