"""Acknowledges before the commit: a full disk loses the event."""

from services.feedback.domain import NotUnderstood, Unavailable


async def consume(delivery, understand, append):
    try:
        event = understand(delivery.body)
    except NotUnderstood:
        await delivery.drop()
        return "refused"
    await delivery.ack()
    try:
        new = await append(event)
    except Unavailable:
        return "waiting"
    return "stored" if new else "duplicate"
