"""Prometheus metrics of one app. A registry per app: notebooks build several in one process."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class HttpMetrics:
    """What every service counts about its requests. `registry` takes the service's own metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time from the request's first byte to the answer's last, in seconds.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.active = Gauge(
            "http_requests_active", "Requests being worked on.", registry=self.registry
        )
        self.shed = Counter(
            "http_requests_shed",
            "Requests refused because all places were taken.",
            registry=self.registry,
        )
        tasks = Gauge("asyncio_tasks", "Tasks in the event loop.", registry=self.registry)
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        # `labels()` looks the child up under a lock; the few combinations are kept here instead.
        self._children: dict[tuple[str, str, int], Histogram] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        key = (method, route, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._seconds.labels(method, route, str(status))
        child.observe(seconds)
