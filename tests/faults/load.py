"""Steady load that does not wait: a request goes out when its time has come, whatever became of
those before it (an open loop; a closed one would send less just when a service is slow)."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver

ENGLISH = (
    "What is a circuit breaker?",
    "What is reciprocal rank fusion?",
    "What does a cross-encoder do?",
    "Why are deadlines passed on between services?",
    "What is an outbox?",
)
PORTUGUESE = (
    "O que é uma fila de mensagens?",
    "O que faz um gateway de API?",
    "O que é busca híbrida?",
)
QUESTIONS = ENGLISH + PORTUGUESE


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: `at` as `time.monotonic()`, `status` 0 when no HTTP answer came."""

    at: float
    ms: float
    status: int
    body: dict[str, Any]
    retry_after: str | None = None
    error: str = ""

    @property
    def degraded(self) -> frozenset[str]:
        return frozenset(self.body.get("degraded", ()))

    @property
    def kind(self) -> str:
        """Of a problem: the last part of its type."""
        return str(self.body.get("type", "")).rpartition(":")[2]

    @property
    def full(self) -> bool:
        return self.status == 200 and not self.degraded


@dataclass(slots=True)
class Load:
    """Sends questions to `url` at `rate` a second, from entering the context until leaving it."""

    url: str
    rate: float
    questions: Sequence[str] = QUESTIONS
    timeout: float = 30.0
    headers: dict[str, str] = field(default_factory=dict)
    resolver: AbstractResolver | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _session: aiohttp.ClientSession | None = None
    _sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=self.resolver, ttl_dns_cache=1),
            # As the services themselves: a container that is gone is silent.
            timeout=aiohttp.ClientTimeout(total=self.timeout, sock_connect=0.3),
            headers=self.headers,
        )
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        assert self._sending is not None
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _send(self) -> None:
        started, sent = time.monotonic(), 0
        while True:
            await asyncio.sleep(max(0.0, started + sent / self.rate - time.monotonic()))
            task = asyncio.create_task(self._one(self.questions[sent % len(self.questions)]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            sent += 1

    async def _one(self, question: str) -> None:
        assert self._session is not None
        self.outcomes.append(await ask(self._session, self.url, {"question": question}))

    def since(self, at: float) -> list[Outcome]:
        return [one for one in self.outcomes if one.at >= at]

    async def until_full(self, since: float, *, patience: float, in_a_row: int = 5) -> float:
        """Seconds from `since` to the first of `in_a_row` full answers, sent one after another."""
        while time.monotonic() - since < patience:
            await asyncio.sleep(0.05)
            later = sorted(self.since(since), key=lambda one: one.at)
            tail = later[-in_a_row:]
            if len(tail) == in_a_row and all(one.full for one in tail):
                last = max((one.at for one in later if not one.full), default=since)
                return next((o.at for o in later if o.at > last), last) - since
        late = [(o.status, o.kind, *sorted(o.degraded), o.error) for o in self.outcomes[-5:]]
        raise AssertionError(f"not back to full answers within {patience:g} s: {late}")


async def ask(session: aiohttp.ClientSession, url: str, body: Any) -> Outcome:
    """POST `body`; never raises, whatever becomes of it."""
    at = time.monotonic()
    status, content, retry_after, error = 0, {}, None, ""
    try:
        async with session.post(url, json=body) as response:
            raw = await response.read()
            status, retry_after = response.status, response.headers.get("retry-after")
            content = orjson.loads(raw)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
        status, error = 0, f"{type(problem).__name__}: {problem}"
    return Outcome(at, (time.monotonic() - at) * 1000, status, content, retry_after, error)


async def steady_rate(url: str, resolver: AbstractResolver | None = None) -> float:
    """Half of what one caller gets who asks one question after the other.

    A machine that is busy with other things is so asked for less: a fault is looked for in the
    services, not an overload.
    """
    connector = aiohttp.TCPConnector(resolver=resolver)
    async with aiohttp.ClientSession(connector=connector) as session:
        for question in QUESTIONS:  # the first time fills caches
            await ask(session, url, {"question": question})
        times = [(await ask(session, url, {"question": q})).ms for q in QUESTIONS]
    return 0.5 * 1000 / statistics.median(times)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
