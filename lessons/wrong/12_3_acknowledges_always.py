"""A finally acknowledges everything."""

from services.feedback.domain import NotUnderstood, Unavailable


async def consume(delivery, understand, append):
    try:
        new = await append(understand(delivery.body))
        return "stored" if new else "duplicate"
    except NotUnderstood:
        await delivery.drop()
        return "refused"
    except Unavailable:
        await delivery.retry(5.0)
        return "waiting"
    finally:
        await delivery.ack()
