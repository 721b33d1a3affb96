"""The one error that reaches a person: what happened, and what to do about it."""

from __future__ import annotations


class WorkshopError(Exception):
    """`what` is one clear sentence, `way_out` is what the person can do next."""

    def __init__(self, what: str, way_out: str = "") -> None:
        super().__init__(f"{what} {way_out}".strip())
        self.what = what
        self.way_out = way_out

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback."""
        return [self.what, *([self.way_out] if self.way_out else [])]
