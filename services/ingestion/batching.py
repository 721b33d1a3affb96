"""Items of several documents in one call: whoever waits while a call runs shares the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from services.chassis import Rejected

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Calls `call` with up to `size` items, `lanes` calls at once; no timer.

    `call` answers one result an item. If a batch of several callers is refused, each caller's
    items are tried alone, so that one bad document fails alone.
    """

    def __init__(
        self, call: Callable[[list[T]], Awaitable[list[R]]], size: int, *, lanes: int = 1
    ) -> None:
        self._call, self._size = call, size
        self._waiting: deque[tuple[list[T], asyncio.Future[list[R]]]] = deque()
        self._news = asyncio.Semaphore(0)
        self._tasks = [asyncio.create_task(self._run()) for _ in range(lanes)]

    async def submit(self, items: list[T]) -> list[R]:
        """Results in the order of `items`; raises what `call` raised."""
        loop = asyncio.get_running_loop()
        futures = []
        for start in range(0, len(items), self._size):
            future: asyncio.Future[list[R]] = loop.create_future()
            self._waiting.append((items[start : start + self._size], future))
            self._news.release()
            futures.append(future)
        parts = await asyncio.gather(*futures, return_exceptions=True)
        for part in parts:  # only now: nothing of these items is under way any more
            if isinstance(part, BaseException):
                raise part
        return [result for part in parts if isinstance(part, list) for result in part]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._news.acquire()
            batch, total = [], 0
            while self._waiting and total + len(self._waiting[0][0]) <= self._size:
                entry = self._waiting.popleft()
                if not entry[1].done():  # else its caller has gone
                    batch.append(entry)
                    total += len(entry[0])
            if self._waiting and total:
                self._news.release()
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: list[tuple[list[T], asyncio.Future[list[R]]]]) -> None:
        try:
            results = await self._call([item for items, _ in batch for item in items])
        except Rejected as error:
            if len(batch) > 1:
                for entry in batch:
                    await self._answer([entry])
                return
            _fail(batch, error)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            _fail(batch, error)
        else:
            start = 0
            for items, future in batch:
                if not future.done():
                    future.set_result(results[start : start + len(items)])
                start += len(items)


def _fail(batch: list[tuple[list[T], asyncio.Future[list[R]]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
