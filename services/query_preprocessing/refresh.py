"""Keeps the corpus's words up to date: own copy on disk first, then sparse_retrieval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.chassis import CallFailed, ServiceClient, get_logger

from .vocabulary import Vocabulary


class VocabularyRefresher:
    """Asks for the vocabulary every `interval` seconds and hands a new one to `use`.

    While sparse_retrieval is gone the last known words stay in use.
    """

    def __init__(
        self, client: ServiceClient, file: Path, interval: float, use: Callable[[Vocabulary], None]
    ) -> None:
        self._client = client
        self._file = file
        self._interval = interval
        self._use = use
        self._etag: str | None = None

    async def restore(self) -> None:
        """Use the copy on disk, if there is one."""
        kept = await asyncio.to_thread(Vocabulary.read, self._file)
        if len(kept):
            self._etag = kept.etag
            self._use(kept)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._interval)

    async def refresh(self) -> bool:
        """One look; whether there was a new vocabulary."""
        headers = {"if-none-match": self._etag} if self._etag else None
        try:
            answer = await self._client.request("GET", "/v1/vocabulary", headers=headers)
        except CallFailed as error:
            get_logger().info("vocabulary_not_refreshed", reason=error.reason)
            return False
        if answer is None:  # 304: nothing has changed
            return False
        try:
            etag, terms = f'"{answer["version"]}"', answer["terms"]
            fresh = await asyncio.to_thread(Vocabulary, terms, etag)
            await asyncio.to_thread(fresh.save, self._file)
        except (KeyError, TypeError, ValueError, OSError) as error:
            get_logger().warning("vocabulary_not_usable", reason=str(error))
            return False
        self._etag = etag
        self._use(fresh)
        get_logger().info("vocabulary_refreshed", words=len(fresh))
        return True
