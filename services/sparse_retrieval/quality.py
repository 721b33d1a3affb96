"""`python -m services.sparse_retrieval.quality en=FOLDER pt=FOLDER`: how well BM25 ranks.

Prints nDCG@10 (Järvelin and Kekäläinen, 2002) of each BEIR collection: alone in an index, with all
given collections in one index, and there with the questions' accents removed.
"""

from __future__ import annotations

import argparse
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .domain import KeywordIndex

_DEPTH = 10


@dataclass(frozen=True, slots=True)
class Collection:
    """A BEIR folder: passages, questions by id, and relevance by question and passage."""

    name: str
    language: str
    passages: list[dict[str, Any]]
    questions: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read(folder: Path, language: str) -> Collection:
    """Read `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`."""
    passages = [
        {
            "id": row["_id"],
            "document": row["_id"],
            "title": row.get("title", ""),
            "heading": "",
            "position": 0,
            "language": language,
            "tags": [],
            "text": row["text"],
        }
        for row in _rows(folder / "corpus.jsonl")
    ]
    questions = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        question, passage, relevance = line.split("\t")
        qrels.setdefault(question, {})[passage] = int(relevance)
    return Collection(folder.name, language, passages, questions, qrels)


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ndcg(ranked: Sequence[str], relevance: Mapping[str, int]) -> float:
    """nDCG at 10 of one ranked list of ids, 0 to 1."""
    gains = [relevance.get(name, 0) for name in ranked[:_DEPTH]]
    ideal = sorted(relevance.values(), reverse=True)[:_DEPTH]
    return _discounted(gains) / _discounted(ideal)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def mean_ndcg(index: KeywordIndex, collection: Collection, *, accents: bool = True) -> float:
    """Mean nDCG@10 over the judged questions of a collection whose passages `index` holds."""
    scores = []
    for question, relevance in collection.qrels.items():
        text = collection.questions[question]
        if not accents:
            text = "".join(
                char
                for char in unicodedata.normalize("NFD", text)
                if not unicodedata.combining(char)
            )
        hits = index.search(text, language=collection.language, top_k=_DEPTH)
        # Passages with equal scores in trec_eval's order, so that the figures compare with others'.
        ranked = sorted(hits, key=lambda hit: (hit.score, hit.id), reverse=True)
        scores.append(ndcg([hit.id for hit in ranked], relevance))
    return sum(scores) / len(scores)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="nDCG@10 of the keyword index on BEIR folders.")
    parser.add_argument("collection", nargs="+", metavar="LANGUAGE=FOLDER")
    collections = []
    for given in parser.parse_args(arguments).collection:
        language, _, folder = given.partition("=")
        if not (Path(folder) / "corpus.jsonl").is_file():
            parser.error(f"{given}: expected LANGUAGE=FOLDER, and corpus.jsonl in that folder")
        collections.append(read(Path(folder), language))
    with KeywordIndex() as together:
        for collection in collections:
            together.put(collection.passages)
        print("| collection | alone | all in one index | questions without accents |")
        print("|---|---|---|---|")
        for collection in collections:
            with KeywordIndex() as alone:
                alone.put(collection.passages)
                figures = (
                    mean_ndcg(alone, collection),
                    mean_ndcg(together, collection),
                    mean_ndcg(together, collection, accents=False),
                )
            print(
                f"| `{collection.name}` | " + " | ".join(f"{each:.3f}" for each in figures) + " |"
            )


if __name__ == "__main__":
    main()
