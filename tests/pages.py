"""Part of the handbook, where a test needs a few pages only: to index all of it takes a minute."""

from __future__ import annotations

from workshop import client

_STEMS = (
    *("api-gateway", "bm25", "cross-encoders", "deadlines-and-timeouts", "dense-retrieval"),
    *("embeddings", "hybrid-search", "message-brokers", "outbox-and-idempotency"),
    *("rate-limiting", "reciprocal-rank-fusion", "retries-and-circuit-breakers"),
    "sparse-retrieval",
)


def some_pages() -> list[client.Document]:
    """Pages in both languages: what the load of the faults and the contracts ask about."""
    return [page for page in client.handbook() if page.path.stem in _STEMS]
