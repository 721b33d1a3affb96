"""An exact prompt cache: the same request at temperature 0 gets the answer it got before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_OVERHEAD = 500
"""Bytes an entry costs beside its text: key, objects, usage. Measured with sys.getsizeof."""

Key = Hashable
MakeKey = Callable[[Mapping[str, Any]], Key | None]

_NOT_OF_THE_ANSWER = frozenset({"request_id", "user", "stream", "stream_options", "prompt"})
"""What a request says that does not change its answer. A prompt by name is in its messages."""


def cache_key(asked: Mapping[str, Any]) -> bytes | None:
    """The key of a request, or None where a second answer may differ.

    `asked` holds the request's fields with the defaults filled in: the `model` that is asked, the
    rendered `messages`, `temperature`, `seed`, `max_tokens` and whatever else the caller set.
    A field that nobody thought of enters the key: the worst that it can do is a miss, while one
    that is left out by mistake gives somebody another request's answer.
    """
    if asked["temperature"] > 0:
        return None
    kept = {name: asked[name] for name in asked if name not in _NOT_OF_THE_ANSWER}
    return hashlib.sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).digest()


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
        self._entries: OrderedDict[Key, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key | None) -> Answer | None:
        answer = None if key is None else self._entries.get(key)
        if answer is not None and key is not None:
            self._entries.move_to_end(key)
        return answer

    def put(self, key: Key | None, answer: Answer) -> None:
        if key is None or key in self._entries or _size(answer) > self.max_bytes:
            return
        self._entries[key] = answer
        self.bytes += _size(answer)
        while self.bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= _size(oldest)


def _size(answer: Answer) -> int:
    return len(answer.content.encode()) + _OVERHEAD
