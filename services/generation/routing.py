"""What to do after a failed call to a model: ask it again, ask another one, or give up.

Only data goes in and out: no clock, no network. Sources: M. Brooker, "Exponential Backoff And
Jitter" (AWS, 2015); RFC 9110, 10.2.3 (Retry-After).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FIRST_PAUSE = 0.1
"""Seconds before the first repetition, on average; each further one doubles it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed, and what is left to try with."""

    status: int | None
    """HTTP status; 504 also for a call that got no answer in time, None where none came at all."""
    called: bool = True
    """False: nobody was asked, because the breaker is open or every place is taken."""
    begun: bool = False
    """Whether a part of the answer has gone to the caller."""
    attempt: int = 1
    """Calls of this model so far, the failed one included."""
    retries: int = 1
    """How often a model may be asked again."""
    others: int = 0
    """Models that are not tried yet."""
    left: float = 60.0
    """Seconds until the caller's deadline."""
    retry_after: float | None = None
    """Seconds that the model asked to wait, if it did."""


@dataclass(frozen=True, slots=True)
class Step:
    action: Literal["again", "elsewhere", "give up"]
    wait: float = 0.0
    """Seconds before the call; only for "again"."""


NextStep = Callable[[Failure], Step]


def next_step(failure: Failure) -> Step:
    """Again where it may pass, elsewhere where it is this model's trouble, else give up.

    A request that is wrong is wrong everywhere. A key, an address or a model name that is wrong
    (401, 403, 404) stays wrong here, and a call that ran out of time is too dear to repeat here;
    another model may do. No wait may pass the deadline.
    """
    status, own = failure.status or 0, (401, 403, 404, 429)
    if failure.begun or failure.left <= 0 or (400 <= status < 500 and status not in own):
        return Step("give up")
    wait = FIRST_PAUSE * 2 ** (failure.attempt - 1) * random.uniform(0.5, 1.5)
    wait = max(wait, failure.retry_after or 0.0)
    passing = failure.called and status not in (401, 403, 404, 504)
    if passing and failure.attempt <= failure.retries and wait < failure.left:
        return Step("again", wait)
    return Step("elsewhere" if failure.others else "give up")
