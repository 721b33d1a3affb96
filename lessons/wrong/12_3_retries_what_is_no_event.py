"""Retries what will never be understood."""

from services.feedback.domain import NotUnderstood, Unavailable


async def consume(delivery, understand, append):
    try:
        event = understand(delivery.body)
        new = await append(event)
    except (NotUnderstood, Unavailable):
        await delivery.retry(5.0)
        return "waiting"
    await delivery.ack()
    return "stored" if new else "duplicate"
