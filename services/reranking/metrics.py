"""What this service counts beside its requests."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class RerankingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.candidates = Histogram(
            "reranking_candidates",
            "Documents in a request.",
            buckets=(1, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=registry,
        )
        self.unranked = Counter(
            "reranking_unranked", "Documents there was no time for.", registry=registry
        )
        self.encoded = Counter(
            "reranking_passages_encoded", "Passages encoded ahead.", registry=registry
        )
