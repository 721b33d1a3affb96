"""Vectors as they arrive: numbers, or base64 of little-endian float32 (as in OpenAI's API).

Without numpy, which would be a fifth of the image for a handful of checks.
"""

from __future__ import annotations

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Iterable

Vector = array  # of float32
MAX_DIMENSIONS = 4096


def decode(value: object) -> Vector[float]:
    """A float32 vector of shape (dimensions,).

    Raises ValueError when it is not one that a cosine can be taken of: empty, too long, not
    numbers, not finite, or all zero.
    """
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("is not valid base64") from error
        if len(raw) % 4:
            raise ValueError("is not a whole number of float32 (4 bytes each)")
        vector = _little_endian(array("f", raw))
    elif isinstance(value, Iterable) and not isinstance(value, dict | bytes):
        numbers = list(value)
        if any(isinstance(item, bool) for item in numbers):
            raise ValueError("holds something that is not a number")
        try:
            vector = array("f", numbers)
        except (TypeError, OverflowError) as error:
            raise ValueError("holds something that is not a number") from error
    else:
        raise ValueError("must be a list of numbers or base64 of little-endian float32")
    if not 1 <= len(vector) <= MAX_DIMENSIONS:
        raise ValueError(f"must have 1 to {MAX_DIMENSIONS} numbers")
    if not all(map(math.isfinite, vector)):
        raise ValueError("holds a number that is not finite")
    if not any(vector):
        raise ValueError("is all zeros; it has no direction to compare")
    return vector


def encode(vector: Iterable[float]) -> str:
    """base64 of the little-endian float32 numbers."""
    return base64.b64encode(_little_endian(array("f", vector)).tobytes()).decode()


def _little_endian(vector: Vector[float]) -> Vector[float]:
    """To the machine's own order of bytes, or back."""
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
