"""A fixed window: at the border everything is given again at once."""

import math


def take_token(bucket, now, *, rate, capacity):
    window = capacity / rate
    if now // window != bucket.at // window:
        bucket.tokens = capacity
    bucket.at = max(bucket.at, now)
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return max(1, math.ceil(window - now % window))
