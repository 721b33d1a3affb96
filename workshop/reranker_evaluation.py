"""The reranking engines side by side on a judged collection, over the same first stage."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np

from services.embedding.domain import batches_by_length
from services.reranking.domain import Engine, TimeLeft, rank
from services.reranking.late_interaction import LateInteraction, TokenEncoder, pad
from services.reranking.store import PassageStore, TokenVectors

from .evaluation.intervals import Interval, bootstrap
from .reranker_data import Bm25, Collection

CANDIDATES, DEPTH = 20, 50
_RRF_K = 60.0

Ranking = list[str]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to order the candidates: nDCG@10 and milliseconds of each query."""

    name: str
    ndcg: list[float]
    milliseconds: list[float]

    def against(self, other: Arm) -> Interval:
        """Mean difference in nDCG@10, paired by query, with its 95 % interval."""
        return bootstrap([a - b for a, b in zip(self.ndcg, other.ndcg, strict=True)])


@dataclass(frozen=True, slots=True)
class Result:
    """The first stage's order and each engine's, on one collection."""

    collection: str
    queries: int
    first_stage: Arm
    engines: list[Arm]


class FirstStage:
    """BM25 and the bilingual encoder fused by RRF, as hybrid_search does by default.

    One pass over the passages gives the encoder's vector and the token vectors of each.
    """

    def __init__(self, folder: Path, work: Path, *, threads: int, progress: Progress) -> None:
        self.encoder = TokenEncoder(folder, threads=threads, max_tokens=512)
        self._work = work
        self._progress = progress

    def candidates(
        self, collection: Collection, store: PassageStore
    ) -> list[tuple[str, list[str]]]:
        """(query, ids of the best passages) in the order of the collection's queries."""
        ids = list(collection.passages)
        passages = self._passage_vectors(list(collection.passages.values()), store)
        bm25 = Bm25(collection.passages)
        found = []
        for query in collection.queries:
            (vector,), _ = self._run([query.text], "query")
            nearest = [ids[row] for row in np.argsort(-(passages @ vector), kind="stable")[:DEPTH]]
            lists = (nearest, bm25.search(query.text, query.language, DEPTH))
            scores: dict[str, float] = {}
            for ranked in lists:
                for place, name in enumerate(ranked, start=1):
                    scores[name] = scores.get(name, 0.0) + 1 / (_RRF_K + place)
            best = sorted(scores, key=lambda name: (-scores[name], name))[:CANDIDATES]
            found.append((query.text, best))
        return found

    def _passage_vectors(self, texts: Sequence[str], store: PassageStore) -> np.ndarray:
        key = hashlib.sha256("\x1e".join((self.encoder.fingerprint, *texts)).encode()).hexdigest()
        cached = self._work / f"passages-{key[:16]}.npy"
        if cached.is_file() and not store.missing(texts):
            vectors: np.ndarray = np.load(cached)
            return vectors
        vectors = np.empty((len(texts), self.encoder.dimension), np.float32)
        lengths = [len(one.ids) for one in self.encoder.tokenize(texts, "passage")]
        done = 0
        for rows in batches_by_length(lengths, 2048):
            part = [texts[row] for row in rows]
            vectors[rows], tokens = self._run(part, "passage")
            store.put(
                {text: TokenVectors.pack(one) for text, one in zip(part, tokens, strict=True)}
            )
            done += len(rows)
            self._progress("encoding passages", done, len(texts))
        np.save(cached, vectors)
        return vectors

    def _run(self, texts: Sequence[str], kind: str) -> tuple[np.ndarray, list[np.ndarray]]:
        encodings = self.encoder.tokenize(texts, kind)
        ids, mask = pad([encoding.ids for encoding in encodings])
        states, pooled = self.encoder.session.run(
            ["last_hidden_state", "sentence_embedding"],
            {"input_ids": ids, "attention_mask": mask},
        )
        return pooled, self.encoder.select(states, encodings, kind)


def compare(
    collection: Collection,
    first_stage: FirstStage,
    engines: Sequence[Engine],
    store: PassageStore,
    progress: Progress,
) -> Result:
    """Rank the same candidates with each engine; passages are known to late interaction."""
    candidates = first_stage.candidates(collection, store)
    first = Arm("first stage", ndcg(collection, [ids for _, ids in candidates]), [])
    arms = []
    for engine in engines:
        rankings, milliseconds = [], []
        for number, (query, ids) in enumerate(candidates, 1):
            texts = [collection.passages[name] for name in ids]
            started = time.perf_counter()
            ranking = rank(engine, query, texts, TimeLeft(3600.0))
            milliseconds.append((time.perf_counter() - started) * 1000)
            rankings.append([ids[item.index] for item in ranking.results])
            progress(f"{collection.name}: {engine.kind}", number, len(candidates))
        arms.append(Arm(engine.kind, ndcg(collection, rankings), milliseconds))
    return Result(collection.name, len(candidates), first, arms)


def ndcg(collection: Collection, rankings: Sequence[Ranking]) -> list[float]:
    """nDCG@10 of each query (Järvelin and Kekäläinen, TOIS 2002)."""
    qrels = {query.id: dict.fromkeys(query.relevant, 1) for query in collection.queries}
    run = {
        query.id: {name: -float(place) for place, name in enumerate(ranking)}
        for query, ranking in zip(collection.queries, rankings, strict=True)
    }
    measure = ir_measures.nDCG @ 10
    values = {row.query_id: row.value for row in ir_measures.iter_calc([measure], qrels, run)}
    return [float(values.get(query.id, 0.0)) for query in collection.queries]


def late_interaction(first_stage: FirstStage, work: Path) -> LateInteraction:
    """The engine over a store of its own in `work`."""
    encoder = first_stage.encoder
    store = PassageStore(
        work,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        memory_bytes=10**9,
        disk_bytes=4 * 10**9,
    )
    return LateInteraction(encoder, store)
