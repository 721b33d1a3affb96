"""Dynamic batching: what has queued up while the model was busy becomes its next batch.

There is no timer. An idle model starts on the first text at once; a busy one finds more texts
waiting when it returns, so batches grow with the load by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from services.chassis import release_free_memory

from .domain import Prepared, TextEncoder, Vectors

Choose = Callable[[Sequence[int], int, int], Sequence[int]]
"""(lengths of the waiting texts, most texts, most tokens) → rows of the next batch."""

# Texts are padded only to lengths within the same bucket: at most this many tokens are wasted.
BUCKET = 16
# Texts that `choose` is shown at once.
_WINDOW = 512
# After so many interactive batches in a row a waiting list gets one turn, so neither starves.
_INTERACTIVE_TURNS = 4


class DeadlinePassed(Exception):
    """The caller's time ran out while its texts were waiting."""


@dataclass(slots=True, eq=False)
class _Job:
    """One caller's texts and the vectors that they have got so far."""

    items: Sequence[Prepared]
    vectors: Vectors
    deadline: float
    done: asyncio.Future[Vectors]
    left: int
    queued: float = field(default_factory=time.monotonic)


def next_batch(lengths: Sequence[int], max_items: int, max_tokens: int) -> list[int]:
    """Which of the waiting texts run next: rows of `lengths`, which are in tokens, oldest first.

    The text that has waited longest is one of them; others of its bucket go with it, oldest first.
    At most `max_items`, and at most `max_tokens` when all are padded to the end of their bucket,
    but always one.
    """
    width = -(-lengths[0] // BUCKET) * BUCKET
    room = max(1, min(max_items, max_tokens // width))
    alike = (row for row, length in enumerate(lengths) if width - BUCKET < length <= width)
    return list(islice(alike, room))


class _Lane:
    """Waiting (job, row) pairs, oldest first."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.waiting: list[tuple[_Job, int]] = []

    def put(self, job: _Job) -> None:
        self.waiting += [(job, row) for row in range(len(job.items))]

    def take(self, max_items: int, max_tokens: int) -> list[tuple[_Job, int]]:
        """The next batch; [] when nothing waits, or when `choose` failed for the oldest text."""
        first = [entry for entry in self.waiting[:_WINDOW] if not entry[0].done.done()]
        self.waiting[:_WINDOW] = first
        if not first:
            return []
        try:
            lengths = [job.items[row].length for job, row in first]
            rows = sorted(set(self.choose(lengths, max_items, max_tokens)))
            if not rows or rows[0] < 0:
                raise ValueError(f"the choice of the next batch gave {rows}")
            taken = [first[row] for row in rows]
        except Exception as error:  # noqa: BLE001 - one bad choice must not stop the queue
            first[0][0].done.set_exception(error)
            return []
        for row in reversed(rows):
            del self.waiting[row]
        return taken


class Batcher:
    """Runs one model in one thread of its own. Make and use it inside a running event loop.

    Requests with few texts (`interactive_items` at most) go before long lists, and a long list
    is worked off in short runs (`bulk_tokens`), so a query never waits for a whole list.
    `choose` picks each batch among the texts that wait. `on_batch(texts, tokens, waits)` is told
    of each run; `waits` in seconds, one a text.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        *,
        max_items: int = 32,
        bulk_tokens: int = 512,
        interactive_items: int = 4,
        choose: Choose = next_batch,
        on_batch: Callable[[int, int, list[float]], None] = lambda *_: None,
    ) -> None:
        self.encoder = encoder
        self.max_items = max_items
        self.bulk_tokens = bulk_tokens
        self.interactive_items = interactive_items
        self._on_batch = on_batch
        self._interactive, self._bulk = _Lane(choose), _Lane(choose)
        self._turns = 0
        self._worked_off_a_list = False
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"encode-{encoder.name}")
        self._task = asyncio.create_task(self._work(), name=f"batcher-{encoder.name}")

    async def aclose(self) -> None:
        """Stop; texts still waiting get an error."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for lane in (self._interactive, self._bulk):
            for job, _ in lane.waiting:
                job.done.cancel()
        self._thread.shutdown(wait=True)

    async def submit(self, items: Sequence[Prepared], *, seconds: float = 3600.0) -> Vectors:
        """Vectors float32 [items, dimension], within `seconds`; raises DeadlinePassed."""
        loop = asyncio.get_running_loop()
        vectors = np.empty((len(items), self.encoder.dimension), np.float32)
        job = _Job(
            items, vectors, time.monotonic() + seconds, loop.create_future(), left=len(items)
        )
        lane = self._interactive if len(items) <= self.interactive_items else self._bulk
        lane.put(job)
        self._wake.set()
        try:
            return await job.done
        finally:
            job.done.cancel()  # a caller that left: its texts are skipped

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                if not (self._interactive.waiting or self._bulk.waiting):
                    if self._worked_off_a_list:
                        self._worked_off_a_list = False
                        await loop.run_in_executor(self._thread, release_free_memory)
                        continue
                    await self._wake.wait()
                continue
            try:
                vectors = await loop.run_in_executor(
                    self._thread, self.encoder.run, [job.items[row] for job, row in batch]
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear it
                for job, _ in batch:
                    if not job.done.done():
                        job.done.set_exception(error)
                continue
            for (job, row), vector in zip(batch, vectors, strict=True):
                job.vectors[row] = vector
                job.left -= 1
                if job.left == 0 and not job.done.done():
                    job.done.set_result(job.vectors)

    def _next_batch(self) -> list[tuple[_Job, int]]:
        bulk_turn = self._bulk.waiting and self._turns >= _INTERACTIVE_TURNS
        if self._interactive.waiting and not bulk_turn:
            self._turns += 1
            batch = self._interactive.take(self.max_items, self.bulk_tokens * 4)
        else:
            self._turns = 0
            self._worked_off_a_list |= bool(self._bulk.waiting)
            batch = self._bulk.take(self.max_items, self.bulk_tokens)
        now = time.monotonic()
        ready: list[tuple[_Job, int]] = []
        for job, row in batch:
            if now < job.deadline:
                ready.append((job, row))
            elif not job.done.done():
                job.done.set_exception(DeadlinePassed())
        if ready:
            self._on_batch(
                len(ready),
                sum(job.items[row].length for job, row in ready),
                [now - job.queued for job, _ in ready],
            )
        return ready
