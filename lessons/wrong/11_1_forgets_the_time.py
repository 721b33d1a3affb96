"""The time of the bucket never moves: the same seconds flow in at every request."""

import math


def take_token(bucket, now, *, rate, capacity):
    bucket.tokens = min(capacity, bucket.tokens + max(0.0, now - bucket.at) * rate)
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((1 - bucket.tokens) / rate)
