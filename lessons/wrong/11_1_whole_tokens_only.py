"""Only whole tokens flow in, and the rest of the time is lost."""

import math


def take_token(bucket, now, *, rate, capacity):
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + int(elapsed * rate))
    bucket.at += elapsed
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((1 - bucket.tokens) / rate)
