"""A circuit breaker (M. Nygard, Release It!, 2nd ed., 2018, ch. 5) for one dependency."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType


class BreakerOpen(Exception):
    """The dependency failed lately; the call was not made. `retry_after` is in seconds."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"{name} failed repeatedly; next attempt in {retry_after:.1f} s")
        self.retry_after = retry_after


class Breaker:
    """Closed → (after `threshold` failures in a row) open → (after `reset` seconds) half-open.

    Half-open lets exactly one probe through: its success closes the breaker, its failure opens
    it again. Use as `with breaker: call()`; an exception counts as a failure unless `ignore`
    says that the dependency is not to blame (a 4xx, a cancelled caller).
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 5,
        reset: float = 2.0,
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

    def __enter__(self) -> Breaker:
        if self._opened_at is not None:
            left = self.reset - (self._clock() - self._opened_at)
            if left > 0 or self._probing:
                raise BreakerOpen(self.name, max(left, 0.0))
            self._probing = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._probing = False
        if error is None:
            self._failures = 0
            self._opened_at = None
        elif not self._ignore(error):
            self._failures += 1
            if self._failures >= self.threshold or self._opened_at is not None:
                self._opened_at = self._clock()
