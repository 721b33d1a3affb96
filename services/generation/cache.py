"""An exact prompt cache: the same request at temperature 0 gets the answer it got before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson

_OVERHEAD = 500
"""Bytes an entry costs beside its text: key, objects, usage. Measured with sys.getsizeof."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, as it can be given again."""

    content: str
    finish_reason: str
    model: str
    usage: dict[str, Any] | None


class PromptCache:
    """Keeps the answers used last, up to `max_bytes` in all. For one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[bytes, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def key(route: str, request: dict[str, Any]) -> bytes | None:
        """The key of a request to a route, or None where a second answer may differ."""
        if request.get("temperature"):
            return None
        return hashlib.sha256(orjson.dumps([route, request], option=orjson.OPT_SORT_KEYS)).digest()

    def get(self, key: bytes | None) -> Answer | None:
        answer = self._entries.get(key) if key else None
        if answer is not None and key is not None:
            self._entries.move_to_end(key)
        return answer

    def put(self, key: bytes | None, answer: Answer) -> None:
        if key is None or key in self._entries or _size(answer) > self.max_bytes:
            return
        self._entries[key] = answer
        self.bytes += _size(answer)
        while self.bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= _size(oldest)


def _size(answer: Answer) -> int:
    return len(answer.content.encode()) + _OVERHEAD
