"""Rate limit and daily quota of one caller: token buckets in memory, and the `limits` library."""

from __future__ import annotations

import inspect
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

import limits
from limits.aio import strategies as async_strategies
from limits.storage import MemoryStorage, storage_from_string

from services.chassis import get_logger

from .domain import Bucket, take_token

Take = Callable[..., int]
"""As `take_token`."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of one limit. Times in seconds."""

    name: str
    amount: int
    window: int
    left: int
    reset: int

    @property
    def policy(self) -> str:
        return f'"{self.name}";q={self.amount};w={self.window}'

    @property
    def state(self) -> str:
        return f'"{self.name}";r={self.left};t={self.reset}'


def rate_headers(allowances: list[Allowance]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-10."""
    if not allowances:
        return {}
    return {
        "ratelimit-policy": ", ".join(item.policy for item in allowances),
        "ratelimit": ", ".join(item.state for item in allowances),
    }


def caller_of_address(address: str) -> str:
    """An IPv6 client owns at least a /64: counting single addresses would limit nobody."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "address:unknown"
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return f"address:{parsed.exploded[:19]}::/64"
    return f"address:{getattr(parsed, 'ipv4_mapped', None) or parsed}"


class _Memory(MemoryStorage):
    """The library's store in memory starts a thread on nearly every hit, to drop what has expired,
    which costs more than the rest of the gateway together. Once in ten seconds is enough."""

    STORAGE_SCHEME = ["memory-swept-seldom"]  # noqa: RUF012
    _swept = float("-inf")

    def _MemoryStorage__schedule_expiry(self) -> None:
        now = time.monotonic()
        if now - self._swept > 10:
            self._swept = now
            super()._MemoryStorage__schedule_expiry()  # type: ignore[misc]


class Buckets:
    """A token bucket for each caller, in the form of a strategy of `limits`.

    It holds a limit's whole amount, so a caller who was quiet may send all of it at once. A bucket
    that nobody asked for as long as it takes to fill is full, and need not be kept.
    """

    def __init__(self, take: Take = take_token, clock: Callable[[], float] = time.monotonic):
        self._take = take
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()  # the longest unused first
        self._wait = 0

    def hit(self, item: limits.RateLimitItem, caller: str) -> bool:
        now = self._clock()
        window = item.get_expiry()
        while self._buckets and next(iter(self._buckets.values())).at < now - window:
            self._buckets.popitem(last=False)
        bucket = self._buckets.setdefault(caller, Bucket(float(item.amount), now))
        self._buckets.move_to_end(caller)
        self._wait = self._take(bucket, now, rate=item.amount / window, capacity=item.amount)
        return self._wait == 0

    def get_window_stats(self, item: limits.RateLimitItem, caller: str) -> tuple[float, int]:
        """(Unix time of the next token, whole tokens left) just after `hit`."""
        left = self._buckets[caller].tokens
        missing = (1 - left % 1) * item.get_expiry() / item.amount
        return time.time() + (self._wait or missing), math.floor(left)


class Quotas:
    """Two limits a caller: a token bucket against bursts, a fixed window as the quota of the day.

    In a shared store the first is the moving window of `limits`: a bucket is read, filled and
    written, and over a network that must be one step or two gateways take the same token.

    The quota is a fixed window that starts with the caller's first request: one counter, where a
    moving window would keep a timestamp for every request of the day.
    """

    def __init__(self, rate: str, quota: str, storage: str, take: Take = take_token) -> None:
        # Over a network it must not block; in memory the asynchronous store would only add a task.
        self._network = not storage.startswith("memory://")
        store = storage_from_string(f"async+{storage}") if self._network else _Memory()
        kinds: Any = async_strategies if self._network else limits.strategies
        self._limits: list[tuple[str, limits.RateLimitItem, Any]] = []
        if rate != "off":
            rates = kinds.MovingWindowRateLimiter(store) if self._network else Buckets(take)
            self._limits.append(("rate", limits.parse(rate), rates))
        if quota != "off":
            self._limits.append(("quota", limits.parse(quota), kinds.FixedWindowRateLimiter(store)))
        self._complained = float("-inf")

    async def take(self, caller: str) -> tuple[bool, list[Allowance]]:
        """Count one request: whether it may go on, and what is left of every limit.

        When the shared storage is gone, requests go on uncounted: the edge keeps working.
        """
        allowances = []
        try:
            for name, item, limiter in self._limits:
                allowed = await _result(limiter.hit(item, caller))
                reset, left = await _result(limiter.get_window_stats(item, caller))
                seconds = max(1, math.ceil(reset - time.time()))
                allowances.append(
                    Allowance(name, item.amount, item.get_expiry(), max(0, left), seconds)
                )
                if not allowed:
                    return False, allowances
        except Exception as error:
            if not self._network:
                raise
            if time.monotonic() - self._complained > 10:
                self._complained = time.monotonic()
                get_logger().error("limits_storage_failed", reason=str(error))
        return True, allowances


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
