"""Vectors as they arrive: numbers, or base64 of little-endian float32 (as in OpenAI's API)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

MAX_DIMENSIONS = 4096


def decode(value: object) -> Vector:
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
        vector = np.frombuffer(raw, dtype="<f4")
    elif isinstance(value, Sequence | np.ndarray):
        if any(isinstance(item, bool | str | bytes) or item is None for item in value):
            raise ValueError("holds something that is not a number")
        try:
            with np.errstate(over="ignore"):
                vector = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("holds something that is not a number") from error
    else:
        raise ValueError("must be a list of numbers or base64 of little-endian float32")
    if vector.ndim != 1 or not 1 <= vector.size <= MAX_DIMENSIONS:
        raise ValueError(f"must have 1 to {MAX_DIMENSIONS} numbers")
    if not np.isfinite(vector).all():
        raise ValueError("holds a number that is not finite")
    if not vector.any():
        raise ValueError("is all zeros; it has no direction to compare")
    return np.asarray(vector, dtype=np.float32)


def encode(vector: Vector) -> str:
    """base64 of the little-endian float32 numbers."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
