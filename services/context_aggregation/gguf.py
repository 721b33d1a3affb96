"""The metadata of a GGUF model file, without its tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 2 and 3, little-endian).
The `gguf` package maps every array item to a NumPy view, which costs seconds and hundreds of
megabytes for a vocabulary; one pass over the header costs a fraction of a second.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from pathlib import Path
from typing import Any, BinaryIO

_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


class NotGguf(ValueError):
    """The file is not a GGUF file that can be read."""


def read_metadata(path: Path, wanted: Container[str]) -> dict[str, Any]:
    """The values of the `wanted` keys that the file has. Strings are str, arrays are lists.

    Raises NotGguf for another format, OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            return _read(file, wanted)
        except (struct.error, KeyError, UnicodeDecodeError, MemoryError, OverflowError) as error:
            raise NotGguf(f"{path.name} is not a complete GGUF file") from error


def _read(file: BinaryIO, wanted: Container[str]) -> dict[str, Any]:
    if file.read(4) != b"GGUF":
        raise NotGguf(f"{Path(file.name).name} does not start with the letters GGUF")
    version, _, count = _number(file, "I"), _number(file, "Q"), _number(file, "Q")
    if version not in (2, 3):
        raise NotGguf(f"GGUF version {version} is not supported; versions 2 and 3 are")
    found = {}
    for _ in range(count):
        key = _string(file).decode()
        value = _value(file, _number(file, "I"), keep=key in wanted)
        if key in wanted:
            found[key] = value
    return found


def _value(file: BinaryIO, kind: int, *, keep: bool) -> Any:
    if kind == _STRING:
        raw = _string(file)
        return raw.decode() if keep else None
    if kind != _ARRAY:
        return _number(file, _FORMATS[kind])
    item, count = _number(file, "I"), _number(file, "Q")
    if item == _STRING:
        if keep:
            return [_string(file).decode() for _ in range(count)]
        for _ in range(count):
            file.seek(_number(file, "Q"), 1)
        return None
    size = struct.calcsize("<" + _FORMATS[item])
    if not keep:
        file.seek(size * count, 1)
        return None
    return list(struct.unpack(f"<{count}{_FORMATS[item]}", file.read(size * count)))


def _string(file: BinaryIO) -> bytes:
    length = _number(file, "Q")
    raw = file.read(length)
    if len(raw) != length:
        raise NotGguf("the file ends inside its header")
    return raw


def _number(file: BinaryIO, fmt: str) -> Any:
    fmt = "<" + fmt
    return struct.unpack(fmt, file.read(struct.calcsize(fmt)))[0]
