"""Rankings of every stage, from the services' own domain code, in this process.

What is measured is what serves: the same encoder, store, keyword index, fusion weights and
reranker, over a collection of its own in a temporary folder.
"""

from __future__ import annotations

import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from services.dense_retrieval.domain import Entry, VectorStore, open_store
from services.embedding.domain import Encoder
from services.hybrid_search.domain import reciprocal_rank_fusion
from services.hybrid_search.settings import Settings as HybridSettings
from services.ingestion.splitting import Passage, index_text
from services.query_preprocessing.domain import Preprocessor
from services.query_preprocessing.vocabulary import Vocabulary
from services.reranking.domain import TimeLeft, rank
from services.sparse_retrieval.domain import KeywordIndex

from .. import models
from .collections import Collection, Query

STAGES = ("bm25", "dense", "dense_english", "hybrid", "hybrid+rerank")
CANDIDATES, RERANKED, DEPTH = 50, 20, 100

Ranking = list[tuple[str, float]]
"""(passage id, score), best first."""


@dataclass(slots=True)
class StageRun:
    """One stage over all queries: rankings and milliseconds by query id."""

    name: str
    rankings: dict[str, Ranking] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)


class Bench:
    """A collection indexed once, and every stage over it."""

    def __init__(
        self,
        collection: Collection,
        folder: Path,
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        self.collection = collection
        self.folder = folder
        self.weights = HybridSettings().weights
        self.bilingual = Encoder.load(models.path("multilingual-e5-small-enpt"))
        self.english = Encoder.load(models.path("all-MiniLM-L6-v2"))
        self.keywords = KeywordIndex()
        self.store: VectorStore = open_store("edge", folder)
        self.texts = {p["id"]: index_text(Passage(**p)) for p in collection.passages}
        self.reranker: Any = None
        self._index(progress)
        self.preprocessor = Preprocessor(vocabulary=Vocabulary(self.keywords.vocabulary().terms))

    def _index(self, progress: Callable[[str, int, int], None]) -> None:
        passages, step = self.collection.passages, 64
        self.keywords.put(passages)
        named = {"bilingual": self.bilingual.name, "english": self.english.name}
        for start in range(0, len(passages), step):
            part = passages[start : start + step]
            texts = [self.texts[p["id"]] for p in part]
            bilingual = self.bilingual.encode(texts, input_type="passage")
            english = self.english.encode(texts, input_type="passage")
            entries = []
            for row, passage in enumerate(part):
                vectors = {"bilingual": bilingual[row]}
                if passage["language"] == "en":
                    vectors["english"] = english[row]
                entries.append(Entry(passage, vectors))
            self.store.put(named, entries)
            progress("indexing", min(start + step, len(passages)), len(passages))

    def load_reranker(self, engine: str | None = None) -> None:
        """The reranker that serves by default, or another engine; passages encoded ahead."""
        from services.reranking.engines import load_engine
        from services.reranking.settings import Settings

        given: dict[str, Any] = {"model_dir": models.path("multilingual-e5-small-enpt")}
        if engine is not None:
            given["engine"] = engine
        self.reranker = load_engine(Settings(data_dir=self.folder, **given))
        if hasattr(self.reranker, "put"):
            self.reranker.put(list(self.texts.values()))

    def run(
        self, stage: str, progress: Callable[[str, int, int], None] = lambda *_: None
    ) -> StageRun:
        run = StageRun(stage)
        queries = [query for query in self.collection.queries if query.id in self.collection.qrels]
        for number, query in enumerate(queries, 1):
            text, language = self.understand(query)
            started = time.perf_counter()
            run.rankings[query.id] = self.rank(stage, text, language)[:DEPTH]
            run.milliseconds[query.id] = (time.perf_counter() - started) * 1000
            progress(stage, number, len(queries))
        return run

    def understand(self, query: Query) -> tuple[str, str]:
        """The search query and its language, as preprocessing makes them of the question."""
        found = self.preprocessor.run(query.text, history=query.history)
        return found.search_query, found.language

    def rank(self, stage: str, text: str, language: str) -> Ranking:
        if stage == "bm25":
            return self._sparse(text, language, DEPTH)
        if stage == "dense":
            return self._dense(text, "bilingual", DEPTH)
        if stage == "dense_english":
            return self._dense(text, "english", DEPTH)
        fused = self.fuse(text, language)
        return self.rerank(text, fused) if stage == "hybrid+rerank" else fused

    def fuse(self, text: str, language: str) -> Ranking:
        weights = self.weights.get(language) or self.weights["other"]
        ask = {
            "sparse": lambda: self._sparse(text, language, DEPTH),
            "dense": lambda: self._dense(text, "bilingual", DEPTH),
            "dense_english": lambda: self._dense(text, "english", DEPTH),
        }
        # Each list gives its best CANDIDATES to the fusion, as in serving; what lies deeper only
        # fills the ranking up to DEPTH for recall@100.
        lists = {name: ask[name]() for name, weight in weights.items() if weight > 0}
        cut = {name: ranked[:CANDIDATES] for name, ranked in lists.items()}
        fused = [(item.id, item.score) for item in reciprocal_rank_fusion(cut, weights=weights)]
        seen = {passage_id for passage_id, _ in fused}
        deep = reciprocal_rank_fusion(lists, weights=weights)
        low = fused[-1][1] if fused else 0.0
        tail = [item for item in deep if item.id not in seen]
        return fused + [(item.id, low - (n + 1) * 1e-9) for n, item in enumerate(tail)]

    def rerank(self, text: str, ranked: Ranking) -> Ranking:
        """The first RERANKED in the reranker's order, then the rest as they were."""
        head, tail = ranked[:RERANKED], ranked[RERANKED:]
        texts = [self.texts[passage_id] for passage_id, _ in head]
        found = rank(self.reranker, text, texts, TimeLeft(60.0))
        top = [(head[item.index][0], 2.0 + item.score) for item in found.results]
        return top + [(passage_id, 1.0 - n * 1e-6) for n, (passage_id, _) in enumerate(tail)]

    def _sparse(self, text: str, language: str, top_k: int) -> Ranking:
        hits = self.keywords.search(text, language=language, top_k=top_k)
        return [(hit.id, hit.score) for hit in hits]

    def _dense(self, text: str, using: str, top_k: int) -> Ranking:
        encoder = self.bilingual if using == "bilingual" else self.english
        row = np.asarray(encoder.encode([text], input_type="query")[0], dtype=np.float32)
        vector = array("f", row.tobytes())
        return [(hit.id, hit.score) for hit in self.store.search(vector, using=using, top_k=top_k)]

    def close(self) -> None:
        self.store.close()
        self.keywords.close()


@contextmanager
def open_bench(
    collection: Collection, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Iterator[Bench]:
    """Index `collection` in a temporary folder that is gone afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="workshop-evaluate-"))
        bench = Bench(collection, Path(folder), progress)
        stack.callback(bench.close)
        yield bench


def per_query(
    run: StageRun, collection: Collection, ids: Sequence[str]
) -> dict[str, dict[str, float]]:
    """nDCG@10, recall@100 and reciprocal rank of each query: metric → query id → value."""
    import ir_measures
    from ir_measures import RR, R, nDCG

    names = {nDCG @ 10: "nDCG@10", R @ 100: "recall@100", RR: "MRR"}
    scores: dict[str, dict[str, float]] = {name: dict.fromkeys(ids, 0.0) for name in names.values()}
    ranked = {
        query: collection.units(ranking) for query, ranking in run.rankings.items() if query in ids
    }
    qrels = {query: collection.qrels[query] for query in ids}
    for row in ir_measures.iter_calc(list(names), qrels, ranked):
        scores[names[row.measure]][row.query_id] = float(row.value)
    return scores
