"""Whether a service can do its job, and what is missing if it cannot."""

from __future__ import annotations

from collections.abc import Callable


class Readiness:
    """Red until the resources are up; red again while draining or when a check names a fault."""

    def __init__(self) -> None:
        self.was_ready = False
        self.draining = False
        self._reason: str | None = "starting"
        self._checks: list[Callable[[], str | None]] = []

    @property
    def reason(self) -> str | None:
        """What is missing, or None."""
        return "shutting down" if self.draining else self.missing

    @property
    def missing(self) -> str | None:
        """What keeps a request from being served, or None: a service that drains still serves."""
        if self._reason is not None:
            return self._reason
        for check in self._checks:
            if (missing := check()) is not None:
                return missing
        return None

    @property
    def ok(self) -> bool:
        return self.reason is None

    def drain(self) -> None:
        """Tell whoever asks to send no more, and serve what comes all the same."""
        self.draining = True

    def set_ready(self) -> None:
        self.was_ready = True
        self._reason = None

    def set_missing(self, reason: str) -> None:
        self._reason = reason

    def add_check(self, check: Callable[[], str | None]) -> None:
        """`check` runs on every request: it returns what is missing, or None, without waiting."""
        self._checks.append(check)
