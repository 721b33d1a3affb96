"""A circuit breaker (M. Nygard, Release It!, 2nd ed., 2018, ch. 5) for one dependency."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class BreakerOpen(Exception):
    """The dependency failed lately; the call was not made. `retry_after` is in seconds."""

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(f"{name} failed repeatedly; next attempt in {retry_after:.1f} s")
        self.retry_after = retry_after


@dataclass(slots=True)
class Circuit:
    """What is known of one dependency. Times are seconds of one monotonic clock.

    Closed → (after `threshold` failures in a row) open → (after `reset` seconds) half-open.
    """

    threshold: int = 5
    reset: float = 1.0
    failures: int = 0
    """In a row."""
    opened_at: float | None = None
    """None while it is closed."""
    probing: bool = False
    """Half-open lets exactly one call through, and it is under way."""


MayCall = Callable[[Circuit, float], bool]
Record = Callable[[Circuit, bool | None, float], None]


def may_call(circuit: Circuit, now: float) -> bool:
    """Whether a call may be made at `now`. Who is let through while half-open is the probe."""
    if circuit.opened_at is None:
        return True
    if circuit.probing or now - circuit.opened_at < circuit.reset:
        return False
    circuit.probing = True
    return True


def record(circuit: Circuit, succeeded: bool | None, now: float) -> None:
    """Count a call that was let through and ended at `now`.

    None: its end says nothing of the dependency (a 4xx, a caller that left). After a probe that
    ended so, the next call is the probe.
    """
    circuit.probing = False
    if succeeded:
        circuit.failures, circuit.opened_at = 0, None
    elif succeeded is False:
        circuit.failures += 1
        if circuit.failures >= circuit.threshold or circuit.opened_at is not None:
            circuit.opened_at = now


class Breaker:
    """A `Circuit` around calls: `with breaker.attempt(): call()`.

    An exception counts as a failure unless `ignore` says that the dependency is not to blame (a
    4xx, a cancelled caller). `may_call` and `record` are its decisions.
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 5,
        reset: float = 1.0,
        ignore: Callable[[BaseException], bool] = lambda error: not isinstance(error, Exception),
        clock: Callable[[], float] = time.monotonic,
        may_call: MayCall = may_call,
        record: Record = record,
    ) -> None:
        self.name = name
        self.circuit = Circuit(threshold, reset)
        self._ignore = ignore
        self._clock = clock
        self._may_call = may_call
        self._record = record

    @property
    def state(self) -> str:
        if self.circuit.opened_at is None:
            return "closed"
        return "half-open" if self._wait() <= 0 else "open"

    def _wait(self) -> float:
        """Seconds until half-open; below zero from then on."""
        return self.circuit.reset - (self._clock() - (self.circuit.opened_at or 0.0))

    @contextmanager
    def attempt(self) -> Iterator[Callable[[], None]]:
        """One call. Raises BreakerOpen when it is not to be made.

        Gives a function that says "it answers" before the call ends: a stream may go on for long,
        and others wait for what the probe finds.
        """
        opened_at = self.circuit.opened_at
        if not self._may_call(self.circuit, self._clock()):
            raise BreakerOpen(self.name, max(self._wait(), 0.0))
        settled = False

        def settle(succeeded: bool | None = True) -> None:
            nonlocal settled
            # A call that was begun before the breaker opened tells nothing new when it ends.
            if not settled and opened_at == self.circuit.opened_at:
                self._record(self.circuit, succeeded, self._clock())
            settled = True

        try:
            yield settle
        except BaseException as error:
            settle(None if self._ignore(error) else False)
            raise
        settle()
