"""Judged questions for notebooks: what each list of the running system finds, and how well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from services.chassis import RequestContext, ServiceClient, use_context
from services.orchestrator.domain import index_text

from . import paths, sync, system
from .evaluation.collections import Collection, Query, load_handbook
from .evaluation.ranking import Ranking, StageRun, per_query

_AT_ONCE = 4
Found = TypeVar("Found")
Lists = dict[str, Ranking]
"""The lists of one question: name → (passage id, that list's own score), best first."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What reranking is given for one question: the search query, and passages, best first.

    `texts` are the passages as they are embedded; `cosines` those of the bilingual vectors, None
    where the passage was not in the dense list.
    """

    query: str
    ids: list[str]
    texts: list[str]
    cosines: list[float | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """The handbook's questions of one split that have relevant passages."""

    collection: Collection
    queries: tuple[Query, ...]

    def lists(
        self, names: Sequence[str] = ("sparse", "dense", "dense_english"), depth: int = 50
    ) -> dict[str, Lists]:
        """Ask the running system for each list on its own: question id → lists.

        As in an answer, the question goes through query_preprocessing first, and the English
        vectors are asked of English questions only.
        """
        return sync.wait(_lists(system.require_running(), self.queries, names, depth))

    def candidates(self, depth: int = 20) -> dict[str, Candidates]:
        """The best `depth` of the running system's search: question id → candidates.

        They are what the orchestrator sends to reranking, in the same order.
        """
        return sync.wait(_candidates(system.require_running(), self.queries, depth))

    def ndcg(self, rankings: Mapping[str, Iterable[str]]) -> dict[str, float]:
        """nDCG@10 of each question, from passage ids, best first (Järvelin and Kekäläinen, 2002).

        A page and its translation count as one: either answers the question.
        """
        run = StageRun(
            "notebook",
            {query: [(p, -float(n)) for n, p in enumerate(ids)] for query, ids in rankings.items()},
        )
        return per_query(run, self.collection, sorted(rankings))["nDCG@10"]


def judged(split: str = "test") -> Judged:
    """The questions of `split`: train, validation or test."""
    collection = load_handbook(paths.ROOT / "handbook", split)
    queries = tuple(query for query in collection.queries if query.id in collection.qrels)
    return Judged(collection, queries)


async def _candidates(
    here: system.System, queries: Sequence[Query], depth: int
) -> dict[str, Candidates]:
    async def ask(hybrid: ServiceClient, asked: dict[str, Any]) -> Candidates:
        body = {"query": asked["search_query"], "language": asked["language"], "top_k": depth}
        hits = (await hybrid.post("/v1/search", body))["hits"]
        dense = [hit["provenance"].get("dense") for hit in hits]
        return Candidates(
            asked["search_query"],
            [hit["id"] for hit in hits],
            [index_text(hit["passage"]) for hit in hits],
            [None if place is None else place["score"] for place in dense],
        )

    return await _each(here, queries, ask)


async def _lists(
    here: system.System, queries: Sequence[Query], names: Sequence[str], depth: int
) -> dict[str, Lists]:
    async def ask(hybrid: ServiceClient, asked: dict[str, Any]) -> Lists:
        found: Lists = {}
        for name in names:
            if name == "dense_english" and asked["language"] != "en":
                continue
            answer = await hybrid.post(
                "/v1/search",
                {
                    "query": asked["search_query"],
                    "language": asked["language"],
                    "lists": [name],
                    "weights": {name: 1},
                    "top_k": depth,
                    "candidates": depth,
                },
            )
            found[name] = [(hit["id"], hit["provenance"][name]["score"]) for hit in answer["hits"]]
        return found

    return await _each(here, queries, ask)


async def _each(
    here: system.System,
    queries: Sequence[Query],
    ask: Callable[[ServiceClient, dict[str, Any]], Awaitable[Found]],
) -> dict[str, Found]:
    """`ask(hybrid_search, what preprocessing made of the question)` for each, a few at once."""
    preprocessing = ServiceClient(
        "query_preprocessing", here.url("query_preprocessing"), timeout=30
    )
    hybrid = ServiceClient("hybrid_search", here.url("hybrid_search"), timeout=30)
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(query: Query) -> Found:
        async with places:
            with use_context(RequestContext.new(60)):
                body = {"query": query.text, "history": query.history}
                return await ask(hybrid, await preprocessing.post("/v1/preprocess", body))

    try:
        answers = await asyncio.gather(*(one(query) for query in queries))
    finally:
        await preprocessing.aclose()
        await hybrid.aclose()
    return {query.id: answer for query, answer in zip(queries, answers, strict=True)}
