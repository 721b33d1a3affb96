"""What this service counts beside its requests."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30)


class GenerationMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.first_token = Histogram(
            "generation_first_token_seconds",
            "Time from the request to its first token, cached answers left out, in seconds.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "generation_tokens", "Tokens used.", ("route", "kind"), registry=registry
        )
        self.cache = Counter(
            "generation_prompt_cache",
            "Requests at temperature 0 by whether the prompt cache had their answer.",
            ("result",),
            registry=registry,
        )
        self.retries = Counter(
            "generation_retries",
            "Calls to a provider that were repeated.",
            ("route",),
            registry=registry,
        )
        self.failures = Counter(
            "generation_provider_failures",
            "Answers a provider did not finish, before or after the first token.",
            ("route", "when"),
            registry=registry,
        )

    def on_usage(self, route: str, usage: dict[str, Any]) -> None:
        details = usage.get("prompt_tokens_details") or {}
        self._tokens.labels(route, "prompt").inc(usage.get("prompt_tokens", 0))
        self._tokens.labels(route, "prompt_cached").inc(details.get("cached_tokens") or 0)
        self._tokens.labels(route, "completion").inc(usage.get("completion_tokens", 0))
