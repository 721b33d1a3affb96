"""Swallows every error, its own mistakes too."""

from services.feedback.domain import NotUnderstood, Unavailable


async def consume(delivery, understand, append):
    try:
        event = understand(delivery.body)
    except NotUnderstood:
        await delivery.drop()
        return "refused"
    try:
        new = await append(event)
    except (Unavailable, Exception):
        await delivery.retry(5.0)
        return "waiting"
    await delivery.ack()
    return "stored" if new else "duplicate"
