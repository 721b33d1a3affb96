"""Memory that was needed for a moment, given back to the machine."""

from __future__ import annotations

import ctypes
import sys
from functools import cache


def release_free_memory() -> None:
    """Hand freed memory back to the system; call it after a burst, from a worker thread.

    glibc keeps what was freed for the next need. A service that loaded a model or indexed a book
    would so hold its peak for as long as it lives. Takes milliseconds; does nothing on other
    systems.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl has none
        return None
