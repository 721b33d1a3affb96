"""Does not acknowledge a duplicate: it comes for ever."""

from services.feedback.domain import NotUnderstood, Unavailable


async def consume(delivery, understand, append):
    try:
        event = understand(delivery.body)
    except NotUnderstood:
        await delivery.drop()
        return "refused"
    try:
        new = await append(event)
    except Unavailable:
        await delivery.retry(5.0)
        return "waiting"
    if not new:
        return "duplicate"
    await delivery.ack()
    return "stored"
