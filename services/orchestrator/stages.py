"""How long a stage may take, and what is noted when it is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.chassis import CallFailed

Work = Callable[[float], Awaitable[Any]]
"""The calls of one stage. It ends within the seconds that it is given, if need be with a
`CallFailed`, and gives something that is not None."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the plan. `cap`: the longest that it may take; `share`: what the stages before
    it leave for it; `least`: with less it is not worth beginning. All in seconds.
    """

    name: str
    cap: float
    share: float

    @property
    def least(self) -> float:
        """Less than the share: a stage behind one that used its time up must still begin."""
        return self.share / 2


class RunStage(Protocol):
    """As `run_stage`."""

    async def __call__(
        self, work: Work, stage: Stage, later: Sequence[Stage], left: float, lost: dict[str, str]
    ) -> Any: ...


async def run_stage(
    work: Work, stage: Stage, later: Sequence[Stage], left: float, lost: dict[str, str]
) -> Any:
    """What `await work(seconds)` gives, or None: then `lost[stage.name]` says why.

    The stage gets what is `left` of the whole answer's time, less the share of each `later`
    stage, and at most its cap. With less than its least it is not begun: work that cannot end
    only takes capacity from others. A failed call is a loss. A bug is not, nor is the
    cancellation of the whole; both pass.
    """
    seconds = min(stage.cap, left - sum(item.share for item in later))
    if seconds < stage.least:
        lost[stage.name] = "not begun: too little time is left"
        return None
    try:
        return await work(seconds)
    except CallFailed as error:
        lost[stage.name] = error.reason
        return None
