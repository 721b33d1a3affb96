"""A passage is embedded, indexed and reranked under the same words, whoever writes them down.

No service imports another, so each has its own few lines of it; this holds them together.
"""

import importlib
from types import SimpleNamespace

import pytest

OWNERS = [
    "services.gateway.domain",
    "services.ingestion.domain",
    "services.orchestrator.domain",
    "services.sparse_retrieval.domain",
]


@pytest.mark.parametrize(
    ("title", "heading", "expected"),
    [
        ("Breakers", "When it opens", "Breakers — When it opens\nAfter five."),
        ("Breakers", "", "Breakers\nAfter five."),
        ("", "", "After five."),
        ("", "When it opens", "After five."),
    ],
)
@pytest.mark.parametrize("owner", OWNERS)
def test_every_owner_writes_the_same_text(owner, title, heading, expected):
    fields = {"title": title, "heading": heading, "text": "After five."}
    index_text = importlib.import_module(owner).index_text
    passage = SimpleNamespace(**fields) if owner.startswith("services.ingestion") else fields
    assert index_text(passage) == expected
