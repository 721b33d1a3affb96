"""Takes Retry-After even where its own wait is longer."""

import random

from services.generation.routing import Step


def next_step(failure):
    status = failure.status or 0
    wrong_everywhere = 400 <= status < 500 and status not in (401, 403, 404, 429)
    if failure.begun or failure.left <= 0 or wrong_everywhere:
        return Step("give up")
    pause = 0.1 * 2 ** (failure.attempt - 1) * random.uniform(0.5, 1.5)
    wait = failure.retry_after or pause
    passing = failure.called and status not in (401, 403, 404, 504)
    if passing and failure.attempt <= failure.retries and wait < failure.left:
        return Step("again", wait)
    return Step("elsewhere" if failure.others else "give up")
