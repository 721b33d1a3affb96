"""Appends a duplicate a second time, to be sure."""

from services.feedback.domain import NotUnderstood, Unavailable


async def consume(delivery, understand, append):
    try:
        event = understand(delivery.body)
    except NotUnderstood:
        await delivery.drop()
        return "refused"
    try:
        new = await append(event) or await append(event)
    except Unavailable:
        await delivery.retry(5.0)
        return "waiting"
    await delivery.ack()
    return "stored" if new else "duplicate"
