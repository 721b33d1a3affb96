"""The bucket grows without end while its caller is silent."""

import math


def take_token(bucket, now, *, rate, capacity):
    bucket.tokens += max(0.0, now - bucket.at) * rate
    bucket.at = max(bucket.at, now)
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return math.ceil((1 - bucket.tokens) / rate)
