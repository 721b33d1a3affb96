"""Test collections: any folder in BEIR layout, and the handbook with its questions."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from services.ingestion.splitting import split_document

from ..errors import WorkshopError

Qrels = dict[str, dict[str, int]]
"""Relevance grades: query id → passage id → grade."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question. `answers` holds alternatives of which one must occur in a correct answer, for
    each thing that it must say: `[["5", "five"], ["seconds"]]`."""

    id: str
    text: str
    language: str | None = None
    kind: str = "plain"
    answers: list[list[str]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    answerable: bool = True


@dataclass(frozen=True, slots=True)
class Collection:
    """Passages in the services' own form, queries and relevance grades.

    `unit` maps passages that say the same thing to one name, under which they are judged: a
    ranking counts its first, and grades are by unit. Passages that it lacks stand for themselves.
    """

    name: str
    passages: list[dict[str, Any]]
    queries: list[Query]
    qrels: Qrels
    unit: dict[str, str] = field(default_factory=dict)

    def units(self, ranking: Iterable[tuple[str, float]]) -> dict[str, float]:
        """Scores by unit, of each unit's first passage in `ranking`."""
        first: dict[str, float] = {}
        for passage_id, score in ranking:
            first.setdefault(self.unit.get(passage_id, passage_id), score)
        return first


def load_beir(folder: Path, split: str = "test") -> Collection:
    """Read `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv` (Thakur et al., 2021).

    A corpus row's language is its `metadata.language` if it has one; otherwise it is detected,
    as ingestion does for a document that does not say.
    """
    qrels: Qrels = {}
    path = folder / "qrels" / f"{split}.tsv"
    with _open(path) as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    passages = []
    for row in _rows(folder / "corpus.jsonl"):
        metadata = row.get("metadata") or {}
        text = f"{row.get('title', '')}\n{row['text']}"
        passages.append(
            {
                "id": row["_id"],
                "document": row["_id"],
                "title": row.get("title") or "",
                "heading": "",
                "position": 0,
                "language": metadata.get("language") or _language(text),
                "tags": [],
                "text": row["text"],
            }
        )
    queries = [
        Query(
            row["_id"],
            row["text"],
            answers=[list(answers)]
            if (answers := (row.get("metadata") or {}).get("answers"))
            else [],
        )
        for row in _rows(folder / "queries.jsonl")
        if row["_id"] in qrels
    ]
    if not queries:
        raise WorkshopError(
            f"{path} judges none of the queries in {folder / 'queries.jsonl'}.",
            "Check that the ids agree and that --split names a file in qrels/.",
        )
    return Collection(folder.name, passages, queries, qrels)


def load_handbook(folder: Path, split: str = "test") -> Collection:
    """The handbook's pages split as ingestion splits them, and the questions of one split.

    A page and its translation say the same: the passages at the same place of both are one unit,
    and either of them answers the question.
    """
    passages: list[dict[str, Any]] = []
    for page in sorted(folder.glob("??/*.md")):
        document = f"{page.parent.name}/{page.stem}"
        found = split_document(page.read_bytes(), document, "text/markdown")
        passages += [asdict(passage) for passage in found]
    unit = {p["id"]: f"{p['document'].split('/', 1)[1]}:{p['position']}" for p in passages}
    queries, qrels = [], {}
    for row in _rows(folder / "questions.jsonl"):
        if row["split"] != split:
            continue
        queries.append(
            Query(
                row["id"],
                row["question"],
                row["language"],
                row["kind"],
                [keyword.split("|") for keyword in row["keywords"]],
                row.get("history", []),
                bool(row["relevant"]),
            )
        )
        if row["relevant"]:
            qrels[row["id"]] = {unit[gold]: 1 for gold in row["relevant"]}
    return Collection(f"handbook-{split}", passages, queries, qrels, unit)


def _language(text: str) -> str:
    """As ingestion detects it for a document that does not say."""
    return split_document(text, "document", "text/plain")[0].language


def _open(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8")
    except OSError as error:
        raise WorkshopError(
            f"{path} could not be read ({error.strerror}).",
            "A collection is a folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels/test.tsv.",
        ) from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise WorkshopError(
                    f"{path}, line {number}: not valid JSON ({error.msg}).", "Mend that line."
                ) from error
