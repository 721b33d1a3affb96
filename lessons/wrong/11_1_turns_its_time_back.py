"""A clock that lags turns the bucket's time back: the same seconds flow in twice."""

import math


def take_token(bucket, now, *, rate, capacity):
    bucket.tokens = min(capacity, bucket.tokens + max(0.0, now - bucket.at) * rate)
    bucket.at = now
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((1 - bucket.tokens) / rate)
