"""The wait has a fraction, which Retry-After may not have."""


def take_token(bucket, now, *, rate, capacity):
    elapsed = max(0.0, now - bucket.at)
    bucket.tokens = min(capacity, bucket.tokens + elapsed * rate)
    bucket.at += elapsed
    if bucket.tokens >= 1:
        bucket.tokens -= 1
        return 0
    return (1 - bucket.tokens) / rate
