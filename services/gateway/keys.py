"""API keys. `python -m services.gateway.keys new NAME` makes one.

Only hashes are kept. A key is 32 random bytes, so a plain SHA-256 is enough: there is nothing to
guess that a slow password hash would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PREFIX = "rag_"
_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")
_ENTRY = re.compile(r"^([A-Za-z0-9_.-]{1,64}):([0-9a-f]{64})$")


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def key_hash(key: str) -> str:
    """SHA-256 of the key, 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def parse_keys(text: str) -> dict[str, str]:
    """Name → hash, from `name:hash` entries; `#` starts a comment. Raises ValueError."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        for entry in line.partition("#")[0].replace(",", " ").split():
            match = _ENTRY.match(entry)
            if not match:
                raise ValueError(
                    f"entry {len(found) + 1} is not `name:sha256`; "
                    "make one with `python -m services.gateway.keys new NAME`"
                )
            if match[1] in found:
                raise ValueError(f"the name {match[1]!r} is there twice")
            found[match[1]] = match[2]
    return found


def holder_of(key: str, hashes: Mapping[str, str]) -> str | None:
    """Whose key it is, or None. `hashes`: name → SHA-256 of the key, in hexadecimal digits.

    It takes the same time whichever entry matches, and however much of one: neither the order of
    the entries nor their digits can be measured from outside.
    """
    presented = key_hash(key)
    found = None
    for name, expected in hashes.items():
        if hmac.compare_digest(presented, expected):
            found = name
    return found


HolderOf = Callable[[str, Mapping[str, str]], str | None]
"""As `holder_of`."""


class KeyRing:
    """The keys that may call. A changed file is read again within `refresh` seconds."""

    def __init__(
        self,
        entries: str,
        file: Path | None,
        *,
        refresh: float = 2.0,
        holder: HolderOf = holder_of,
    ) -> None:
        self._holder = holder
        self._fixed = parse_keys(entries)
        self._file = file
        self._refresh = refresh
        self._checked = time.monotonic()
        self._stamp = self._file_stamp()
        self._names = self._read()
        self.problem: str | None = None

    @property
    def configured(self) -> bool:
        """Whether keys are asked for at all; a file that is named counts even when it is empty."""
        return self._file is not None or bool(self._fixed)

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, key: str) -> str | None:
        """Whose key it is, or None."""
        self._reload()
        return self._holder(key, self._names)

    def _read(self) -> dict[str, str]:
        from_file = parse_keys(self._file.read_text()) if self._file else {}
        return self._fixed | from_file

    def _file_stamp(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size

    def _reload(self) -> None:
        """A file that became unreadable keeps the keys it had: a slip must not lock all out."""
        if self._file is None or time.monotonic() - self._checked < self._refresh:
            return
        self._checked = time.monotonic()
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names = self._read()
            self.problem = None
        except (OSError, ValueError) as error:
            self.problem = f"{type(error).__name__}: {error}"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "new" or not _NAME.match(arguments[1]):
        print(
            "Usage: python -m services.gateway.keys new NAME\n"
            "NAME: letters, digits, `_`, `.`, `-`. Prints a key once, and the line for "
            "GATEWAY_API_KEYS_FILE.",
            file=sys.stderr,
        )
        return 2
    key = new_key()
    print(f"The key, shown only now:  {key}")
    print(f"The line to configure:    {arguments[1]}:{key_hash(key)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
