"""Judged data for the reranker: fitz-gov and the handbook, and BM25 over them.

Nothing here is downloaded: `workshop.models` has fetched fitz-gov, the handbook is in the
repository.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tantivy

from .errors import WorkshopError

MINED = 30
_WORD = re.compile(r"\w+", re.UNICODE)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Query:
    """A judged query: ids of the passages that answer it."""

    id: str
    text: str
    language: str
    relevant: frozenset[str]


@dataclass(frozen=True, slots=True)
class Collection:
    """Passages by id (index text), and queries over them."""

    name: str
    passages: dict[str, str]
    queries: list[Query]


def fitz_gov(folder: Path, *, held_out: int = 300, seed: int = 7) -> tuple[Collection, Collection]:
    """fitz-gov as (training, held-out) collections over the same passages.

    A passage is a document's content without its title, which often repeats the query. No
    held-out query shares a relevant passage or its wording with a training query.
    """
    try:
        lines = (folder / "data/corpus/documents.jsonl").read_text(encoding="utf-8").splitlines()
        mappings = json.loads(
            (folder / "data/queries/query_mappings.json").read_text(encoding="utf-8")
        )["mappings"]
    except FileNotFoundError as error:
        raise WorkshopError(
            f"fitz-gov is not complete: {error.filename} is missing.", "Fetch the models again."
        ) from error
    passages: dict[str, str] = {}
    first_id: dict[str, str] = {}
    same: dict[str, str] = {}
    for document in map(json.loads, lines):
        name = first_id.setdefault(document["content"], document["id"])
        same[document["id"]] = name
        passages[name] = document["content"]
    queries: dict[str, Query] = {}
    for cases in mappings.values():
        for name, case in sorted(cases.items()):
            relevant = frozenset(same[one] for one in case["relevant_docs"] if one in same)
            if relevant:
                queries.setdefault(case["query"], Query(name, case["query"], "en", relevant))
    shuffled = sorted(queries.values(), key=lambda query: query.id)
    random.Random(seed).shuffle(shuffled)
    test, rest = shuffled[:held_out], shuffled[held_out:]
    taken = frozenset[str]().union(*(query.relevant for query in test))
    train = [query for query in rest if not query.relevant & taken]
    return Collection("fitz-gov train", passages, train), Collection("fitz-gov", passages, test)


def handbook(root: Path, split: str) -> Collection:
    """The handbook's sections and the answerable stand-alone questions of one split."""
    passages = {
        name: text
        for path in sorted((root / "handbook").glob("*/*.md"))
        for name, text in sections(path)
    }
    queries = []
    for line in (root / "handbook/questions.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        relevant = frozenset(item["relevant"]) & passages.keys()
        if item["split"] == split and relevant and not item.get("history"):
            queries.append(Query(item["id"], item["question"], item["language"], relevant))
    return Collection("handbook", passages, queries)


def sections(path: Path) -> Iterator[tuple[str, str]]:
    """(id, index text) of a page's opening and of each of its `##` sections."""
    raw = path.read_text(encoding="utf-8")
    front = _FRONT_MATTER.match(raw)
    body = raw[front.end() :] if front else raw
    found = re.search(r"^title:\s*(.+)$", front[1] if front else "", re.MULTILINE)
    title = found[1].strip() if found else path.stem
    opening, *rest = re.split(r"^## ", re.sub(r"\A\s*# .*\n", "", body), flags=re.MULTILINE)
    page = f"{path.parent.name}/{path.stem}"
    yield page, f"{title}\n{opening.strip()}"
    for section in rest:
        heading, _, text = section.partition("\n")
        yield f"{page}#{slug(heading)}", f"{title} — {heading.strip()}\n{text.strip()}"


def slug(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


class Bm25:
    """BM25 over the passages of a collection, stemmed per language, in memory."""

    _FIELDS = ("en", "pt")

    def __init__(self, passages: dict[str, str]) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw")
        for language in self._FIELDS:
            builder.add_text_field(language, tokenizer_name=language)
        self._index = tantivy.Index(builder.build())
        for language, name in (("en", "english"), ("pt", "portuguese")):
            analyzer = (
                tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
                .filter(tantivy.Filter.lowercase())
                .filter(tantivy.Filter.stemmer(name))
                .build()
            )
            self._index.register_tokenizer(language, analyzer)
        writer = self._index.writer(heap_size=32_000_000, num_threads=1)
        for name, text in passages.items():
            writer.add_document(tantivy.Document(id=name, en=text, pt=text))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(self, query: str, language: str, top_k: int) -> list[str]:
        """Ids of the best passages, best first."""
        words = " ".join(_WORD.findall(query)).lower()  # lower case: no AND, OR and NOT
        if not words:
            return []
        parsed = self._index.parse_query(words, [language if language == "pt" else "en"])
        hits = self._searcher.search(parsed, top_k).hits
        return [self._searcher.doc(address)["id"][0] for _, address in hits]


@dataclass(frozen=True, slots=True)
class Group:
    """One relevant passage and some that are not: what a listwise loss compares."""

    query: str
    passages: Sequence[str]
    """The relevant one first."""


def training_groups(
    collection: Collection, *, negatives: int, repeats: int = 1, seed: int = 7
) -> list[Group]:
    """Groups with hard negatives, drawn from the best `MINED` of BM25 that are not relevant.

    BM25 searches one language, so the same section in the other language, which answers the
    query too, is seldom among them. Negatives from the fused first stage were tried as well: with
    them the loss stayed where chance has it.
    """
    bm25 = Bm25(collection.passages)
    generator = random.Random(seed)
    groups = []
    for query in collection.queries:
        found = bm25.search(query.text, query.language, MINED)
        pool = [name for name in found if name not in query.relevant]
        if len(pool) < negatives:
            continue
        for _ in range(repeats):
            chosen = [generator.choice(sorted(query.relevant)), *generator.sample(pool, negatives)]
            groups.append(Group(query.text, [collection.passages[name] for name in chosen]))
    return groups


def only_pages(collection: Collection, split_queries: Sequence[Query]) -> Collection:
    """The collection cut down to pages that hold an answer to `split_queries`.

    So that training never sees, not even as a negative, a page of another split.
    """
    pages = {name.partition("#")[0].split("/")[1] for q in split_queries for name in q.relevant}
    passages = {
        name: text
        for name, text in collection.passages.items()
        if name.partition("#")[0].split("/")[1] in pages
    }
    return Collection(collection.name, passages, collection.queries)
