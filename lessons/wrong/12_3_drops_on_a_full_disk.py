"""Drops an event because the disk is full."""

from services.feedback.domain import NotUnderstood, Unavailable


async def consume(delivery, understand, append):
    try:
        event = understand(delivery.body)
        new = await append(event)
    except (NotUnderstood, Unavailable):
        await delivery.drop()
        return "refused"
    await delivery.ack()
    return "stored" if new else "duplicate"
