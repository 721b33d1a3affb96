"""Judged questions for notebooks: what each list of the running system finds, and how well."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.chassis import RequestContext, ServiceClient, use_context

from . import paths, sync, system
from .evaluation.collections import Collection, Query, load_handbook
from .evaluation.ranking import Ranking, StageRun, per_query

_AT_ONCE = 4
Lists = dict[str, Ranking]
"""The lists of one question: name → (passage id, that list's own score), best first."""


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


async def _lists(
    here: system.System, queries: Sequence[Query], names: Sequence[str], depth: int
) -> dict[str, Lists]:
    preprocessing = ServiceClient(
        "query_preprocessing", here.url("query_preprocessing"), timeout=30
    )
    hybrid = ServiceClient("hybrid_search", here.url("hybrid_search"), timeout=30)
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(query: Query) -> Lists:
        async with places:
            with use_context(RequestContext.new(60)):
                body = {"query": query.text, "history": query.history}
                asked = await preprocessing.post("/v1/preprocess", body)
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
                    found[name] = [
                        (hit["id"], hit["provenance"][name]["score"]) for hit in answer["hits"]
                    ]
                return found

    try:
        answers = await asyncio.gather(*(one(query) for query in queries))
    finally:
        await preprocessing.aclose()
        await hybrid.aclose()
    return {query.id: lists for query, lists in zip(queries, answers, strict=True)}
