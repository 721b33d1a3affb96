"""What this service counts beside its requests."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

_WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class EmbeddingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._size = Histogram(
            "embedding_batch_size",
            "Texts in one run of the model.",
            ("model",),
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self._wait = Histogram(
            "embedding_queue_wait_seconds",
            "Time a text waited for the model, in seconds.",
            ("model",),
            buckets=_WAITS,
            registry=registry,
        )
        self._tokens = Counter(
            "embedding_tokens", "Tokens run through the model.", ("model",), registry=registry
        )
        self._hits = Counter(
            "embedding_cache_hits", "Texts found in the cache.", ("model",), registry=registry
        )
        self._misses = Counter(
            "embedding_cache_misses", "Texts not in the cache.", ("model",), registry=registry
        )

    def on_batch(self, model: str) -> Callable[[int, int, list[float]], None]:
        size, wait = self._size.labels(model), self._wait.labels(model)
        total = self._tokens.labels(model)

        def observe(texts: int, tokens: int, waits: list[float]) -> None:
            size.observe(texts)
            total.inc(tokens)
            for seconds in waits:
                wait.observe(seconds)

        return observe

    def on_lookup(self, model: str, *, hits: int, misses: int) -> None:
        self._hits.labels(model).inc(hits)
        self._misses.labels(model).inc(misses)
