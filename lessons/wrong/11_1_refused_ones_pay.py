"""A refused request takes a token as well: the bucket goes into debt."""

import math


def take_token(bucket, now, *, rate, capacity):
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate) - 1
    bucket.at += elapsed
    if bucket.tokens >= 0:
        return 0
    return math.ceil(-bucket.tokens / rate)
