"""The workshop's command line, and the library that notebooks use (see `workshop.learn`).

`import workshop` is light: what a notebook calls is imported when it is first named.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faults import disconnect, kill, pause, proxied, slow
    from .learn import (
        bill,
        catch_up,
        check,
        fixed_answers,
        judged,
        load,
        progress,
        restore,
        same,
        save_cell,
        scale,
        serve,
        start,
        swap,
    )

_FAULTS = ("disconnect", "kill", "pause", "proxied", "slow")
__all__ = [
    "bill",
    "catch_up",
    "check",
    "disconnect",
    "fixed_answers",
    "judged",
    "kill",
    "load",
    "pause",
    "progress",
    "proxied",
    "restore",
    "same",
    "save_cell",
    "scale",
    "serve",
    "slow",
    "start",
    "swap",
]


def __getattr__(name: str) -> Any:
    if name in _FAULTS:
        from . import faults

        return getattr(faults, name)
    if name in __all__:
        from . import learn

        return getattr(learn, name)
    raise AttributeError(f"module 'workshop' has no attribute {name!r}")


def __dir__() -> "list[str]":
    return sorted([*globals(), *__all__])
