"""A circuit breaker (M. Nygard, Release It!, 2nd ed., 2018, ch. 5) for one dependency."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BreakerOpen(Exception):
    """The dependency failed lately; the call was not made. `retry_after` is in seconds."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"{name} failed repeatedly; next attempt in {retry_after:.1f} s")
        self.retry_after = retry_after


class Breaker:
    """Closed → (after `threshold` failures in a row) open → (after `reset` seconds) half-open.

    Half-open lets exactly one probe through: its success closes the breaker, its failure opens
    it again. Use as `with breaker.attempt(): call()`; an exception counts as a failure unless
    `ignore` says that the dependency is not to blame (a 4xx, a cancelled caller).
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 5,
        reset: float = 1.0,
        ignore: Callable[[BaseException], bool] = lambda error: not isinstance(error, Exception),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.threshold = threshold
        self.reset = reset
        self._ignore = ignore
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        if self._opened_at is None:
            return "closed"
        return "half-open" if self._clock() - self._opened_at >= self.reset else "open"

    @contextmanager
    def attempt(self) -> Iterator[Callable[[], None]]:
        """One call. Raises BreakerOpen when it is not to be made.

        Gives a function that says "it answers" before the call ends: a stream may go on for long,
        and others wait for what the probe finds.
        """
        opened_at = self._opened_at
        if opened_at is not None:
            left = self.reset - (self._clock() - opened_at)
            if left > 0 or self._probing:
                raise BreakerOpen(self.name, max(left, 0.0))
            self._probing = True
        settled = False

        def settle(failure: BaseException | None = None) -> None:
            nonlocal settled
            if settled:
                return
            settled = True
            if opened_at is not None:
                self._probing = False
            # A call that was begun before the breaker opened tells nothing new when it ends.
            if opened_at == self._opened_at:
                self._count(failure)

        try:
            yield settle
        except BaseException as error:
            settle(error)
            raise
        settle()

    def _count(self, failure: BaseException | None) -> None:
        if failure is None:
            self._failures = 0
            self._opened_at = None
        elif not self._ignore(failure):
            self._failures += 1
            if self._failures >= self.threshold or self._opened_at is not None:
                self._opened_at = self._clock()
