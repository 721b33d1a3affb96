"""A keyword index: BM25 over passages, incremental, durable, on the tantivy engine.

Usable without the service: `KeywordIndex(folder)`, or `KeywordIndex()` for one in memory.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import tantivy
from tantivy import Occur, Query

from .analysis import FIELDS, LANGUAGES, QueryAnalyzer, register
from .bm25 import Scorer, Word

# Raised when the stored form changes: a new folder is begun and the old one left alone.
FORMAT = 1
_HEAP = 32_000_000
_ANALYSED = [name for fields in FIELDS.values() for name in fields]
# tantivy counts deleted passages in BM25's statistics until it merges them away, so their share
# is kept below this by writing the index anew.
_MOST_DELETED = 0.2


class IndexLocked(Exception):
    """Another process has the index open."""


class IndexFull(Exception):
    """The disk has no room. Nothing of the write was kept."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Only passages that match every given field; within a field, any of its values.

    An empty sequence has no value that could match: nothing is found.
    """

    language: Sequence[str] | None = None
    document: Sequence[str] | None = None
    tag: Sequence[str] | None = None

    def fields(self) -> dict[str, Sequence[str]]:
        given = {"language": self.language, "document": self.document, "tag": self.tag}
        return {name: values for name, values in given.items() if values is not None}


@dataclass(frozen=True, slots=True)
class Hit:
    """A found passage: its id, its BM25 score and its JSON as stored."""

    id: str
    score: float
    raw: bytes

    @property
    def passage(self) -> dict[str, Any]:
        passage: dict[str, Any] = orjson.loads(self.raw)
        return passage


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words of all passages, lower case and unstemmed, with their document frequencies."""

    version: str
    terms: dict[str, int]


def index_text(passage: Mapping[str, Any]) -> str:
    """The text of a passage that is indexed: title, heading and body."""
    title, heading = passage["title"], passage["heading"]
    if not title:
        return str(passage["text"])
    head = f"{title} — {heading}" if heading else title
    return f"{head}\n{passage['text']}"


class _Write:
    """One caller's operation, waiting for the commit that will hold it."""

    __slots__ = ("apply", "done", "wake")

    def __init__(self, apply: Callable[[_Pending], int]) -> None:
        self.apply = apply
        self.done: Future[int] = Future()
        self.wake = threading.Event()


_Pending = dict[str, dict[str, Any] | None]
"""Passages to be written by the next commit, by id; None where one is to be deleted."""


class KeywordIndex:
    """BM25 (k1 = 1.2, b = 0.75; Robertson and Zaragoza, 2009) over passages.

    Every passage is analysed in every language. A query is analysed in its own language and
    matched against that analysis of all passages: terms that two languages share (`kubernetes`)
    match across them, and the statistics of the collection are the same for every passage.

    Thread-safe. A write returns after it is on disk (fsync); writes that wait at the same time
    share one commit. Searches go on meanwhile, over the last committed state.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        min_free_bytes: int = 0,
        scorer: Scorer | None = None,
    ) -> None:
        """Open or create the index under `folder`; without a folder it lives in memory.

        tantivy finds the passages and scores them; a `scorer` scores what tantivy finds.
        Raises IndexLocked when another process has it open.
        """
        self._folder = None if folder is None else Path(folder) / f"keywords-{FORMAT}"
        self._min_free_bytes = min_free_bytes
        self._scorer = scorer
        self._schema = _schema()
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._index = tantivy.Index(
            self._schema, path=None if self._folder is None else str(self._folder)
        )
        register(self._index)
        self._analyzers = {language: QueryAnalyzer(language) for language in LANGUAGES}
        self._writer: tantivy.IndexWriter | None = self._open_writer()
        self._waiting: list[_Write] = []
        self._led = False
        self._waiting_lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._vocabulary: tuple[tantivy.Searcher, Vocabulary] | None = None
        self._refresh()

    # Reading

    def search(
        self,
        query: str,
        *,
        language: str | None = None,
        top_k: int = 10,
        where: Filter | None = None,
    ) -> list[Hit]:
        """The `top_k` passages with the highest BM25 score, best first; ties in order of id.

        `query` is plain words, not a query language. With a `language` that has no analysis of
        its own, or None, each passage gets the best of its scores.
        """
        analyses = self._analyses(query, language)
        if not analyses:
            return []
        asked = _best([self._any_word(words) for words in analyses])
        if where is not None and (fields := where.fields()):
            if not all(fields.values()):
                return []
            filters = [
                Query.const_score_query(Query.term_set_query(self._schema, name, list(values)), 0.0)
                for name, values in fields.items()
            ]
            asked = Query.boolean_query([(Occur.Must, part) for part in (asked, *filters)])
        searcher = self._searcher
        if self._scorer is not None:
            return self._scored(self._scorer, searcher, asked, analyses)[:top_k]
        # A few more than wanted, so that passages which tie at the cut are put in order too.
        limit = top_k + 8
        while True:
            found = searcher.search(asked, limit, count=False).hits
            if len(found) < limit or found[top_k - 1][0] != found[-1][0]:
                break
            limit *= 2
        hits = [_hit(score, searcher.doc(address)) for score, address in found]
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits[:top_k]

    def vocabulary(self) -> Vocabulary:
        """All words with the number of passages that hold each; kept until the next write."""
        searcher = self._searcher
        cached = self._vocabulary
        if cached is not None and cached[0] is searcher:
            return cached[1]
        terms = dict(searcher.terms_with_prefix("words", "", filter_query=Query.all_query()))
        digest = hashlib.blake2b(orjson.dumps(terms, option=orjson.OPT_SORT_KEYS), digest_size=8)
        vocabulary = Vocabulary(digest.hexdigest(), terms)
        self._vocabulary = (searcher, vocabulary)
        return vocabulary

    def __len__(self) -> int:
        """Number of passages."""
        return int(self._searcher.num_docs)

    def stats(self) -> dict[str, Any]:
        """Number of passages, of documents that have any, of passages by language; the store."""
        searcher, everything = self._searcher, Query.all_query()
        return {
            "passages": searcher.num_docs,
            "documents": len(searcher.terms_with_prefix("document", "", filter_query=everything)),
            "languages": dict(searcher.terms_with_prefix("language", "", filter_query=everything)),
            "store": "memory" if self._folder is None else "disk",
        }

    # Writing

    def put(self, passages: Iterable[Mapping[str, Any]]) -> int:
        """Store passages, each in place of the one with its id; returns how many.

        Raises IndexFull (nothing was kept) when the disk has no room.
        """
        stored = {str(passage["id"]): dict(passage) for passage in passages}

        def apply(pending: _Pending) -> int:
            for passage_id, passage in stored.items():
                # Writing an unchanged passage again would only leave a deleted copy behind.
                if self._current(passage_id, pending) != passage:
                    pending[passage_id] = passage
            return len(stored)

        return self._write(apply)

    def delete(self, *, documents: Iterable[str] = (), ids: Iterable[str] = ()) -> int:
        """Delete passages by document or by id; returns how many there were."""
        documents, ids = set(documents), set(ids)

        def apply(pending: _Pending) -> int:
            doomed = {name for name in ids if self._current(name, pending) is not None}
            doomed |= {name for name in self._of(documents) if pending.get(name, True)}
            doomed |= {
                name for name, new in pending.items() if new and new["document"] in documents
            }
            pending.update(dict.fromkeys(doomed))
            return len(doomed)

        return self._write(apply)

    def close(self) -> None:
        """Release the folder. What was acknowledged is already on disk."""
        with self._commit_lock:
            if self._writer is not None:
                self._writer.wait_merging_threads()
                self._writer = None

    def __enter__(self) -> KeywordIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, apply: Callable[[_Pending], int]) -> int:
        """Group commit: one waiting caller commits for all, then wakes the next to do so."""
        write = _Write(apply)
        with self._waiting_lock:
            self._waiting.append(write)
            leads, self._led = not self._led, True
        if not leads:
            write.wake.wait()
        if not write.done.done():
            with self._waiting_lock:
                group, self._waiting = self._waiting, []
            with self._commit_lock:
                self._commit(group)
            for other in group:
                other.wake.set()
            with self._waiting_lock:
                if self._waiting:
                    self._waiting[0].wake.set()
                else:
                    self._led = False
        return write.done.result()

    def _commit(self, group: Sequence[_Write]) -> None:
        try:
            pending: _Pending = {}
            counts = [write.apply(pending) for write in group]
            if pending:
                self._store(pending)
        except Exception as error:  # noqa: BLE001 - each waiting caller gets it
            for write in group:
                write.done.set_exception(error)
            return
        for write, count in zip(group, counts, strict=True):
            write.done.set_result(count)

    def _store(self, pending: _Pending) -> None:
        self._check_room()
        if self._writer is None:
            self._writer = self._open_writer()
        try:
            self._replace(self._writer, pending)
        except Exception as error:
            self._drop_writer()
            if _is_full(error):
                raise IndexFull(f"no room on the disk of {self._folder}") from error
            raise
        self._refresh()
        if self._deleted_share() > _MOST_DELETED:
            self._rewrite(self._writer)

    def _replace(self, writer: tantivy.IndexWriter, pending: _Pending) -> None:
        for passage_id, passage in pending.items():
            writer.delete_documents_by_term("id", passage_id)
            if passage is not None:
                writer.add_document(_document(passage))
        writer.commit()

    def _rewrite(self, writer: tantivy.IndexWriter) -> None:
        """Delete and add everything in one commit: what had been deleted before is then gone."""
        searcher = self._searcher
        found = searcher.search(Query.all_query(), max(1, searcher.num_docs), count=False).hits
        try:
            writer.delete_documents_by_query(Query.all_query())
            for _, address in found:
                writer.add_document(_document(_hit(0.0, searcher.doc(address)).passage))
            writer.commit()
        except (OSError, ValueError):
            # The write before it is safe, and the next one tries this again.
            self._drop_writer()
        self._refresh()

    def _deleted_share(self) -> float:
        """Deleted passages still in the statistics, as a share of the living."""
        counted = self._searcher.doc_freq("every", "1")
        return (counted - len(self)) / max(1, len(self))

    def _drop_writer(self) -> None:
        """Forget what was not committed. A writer that met a full disk cannot be used again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.rollback()
            except (OSError, ValueError, RuntimeError):
                pass
            else:
                self._writer = writer

    def _open_writer(self) -> tantivy.IndexWriter:
        try:
            return self._index.writer(_HEAP, 1)
        except ValueError as error:
            if "LockBusy" in str(error):
                raise IndexLocked(
                    f"the keyword index in {self._folder} is open in another process; "
                    "stop that process or set SPARSE_DATA_DIR to another folder"
                ) from error
            raise

    def _refresh(self) -> None:
        self._index.reload()
        self._searcher = self._index.searcher()

    def _check_room(self) -> None:
        if self._folder is None or not self._min_free_bytes:
            return
        free = shutil.disk_usage(self._folder).free
        if free < self._min_free_bytes:
            raise IndexFull(
                f"the disk has {free // 1_000_000} MB free, fewer than the "
                f"{self._min_free_bytes // 1_000_000} MB of SPARSE_MIN_FREE_BYTES"
            )

    def _current(self, passage_id: str, pending: _Pending) -> dict[str, Any] | None:
        if passage_id in pending:
            return pending[passage_id]
        term = Query.term_query(self._schema, "id", passage_id, "basic")
        found = self._searcher.search(term, 1, count=False).hits
        return _hit(0.0, self._searcher.doc(found[0][1])).passage if found else None

    def _of(self, documents: set[str]) -> set[str]:
        """Ids of the stored passages of these documents."""
        if not documents or not len(self):
            return set()
        query = Query.term_set_query(self._schema, "document", list(documents))
        found = self._searcher.search(query, len(self), count=False).hits
        return {_hit(0.0, self._searcher.doc(address)).id for _, address in found}

    def _scored(
        self,
        scorer: Scorer,
        searcher: tantivy.Searcher,
        asked: Query,
        analyses: Sequence[Counter[Word]],
    ) -> list[Hit]:
        """Everything that `asked` finds, scored by `scorer`."""
        found = searcher.search(asked, max(1, searcher.num_docs), count=False).hits
        hits = [_hit(score, searcher.doc(address)) for score, address in found]
        texts = [index_text(hit.passage) for hit in hits]
        scores = scorer.scores(searcher, self._schema, analyses, texts)
        hits = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def _analyses(self, query: str, language: str | None) -> list[Counter[Word]]:
        """The words of the query in its language, or in each; none where it has no words."""
        primary = (language or "").lower().split("-")[0]
        languages = [primary] if primary in LANGUAGES else list(LANGUAGES)
        return [words for one in languages if (words := self._analyzers[one].words(query))]

    def _any_word(self, words: Counter[Word]) -> Query:
        parts = []
        for word, count in words.items():
            part = _best(
                [Query.term_query(self._schema, field, term, "freq") for field, term in word]
            )
            parts.append((Occur.Should, part if count == 1 else Query.boost_query(part, count)))
        return Query.boolean_query(parts)


def _best(parts: Sequence[Query]) -> Query:
    """Scores the highest of the parts' scores."""
    return parts[0] if len(parts) == 1 else Query.disjunction_max_query(parts)


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    for name in ("document", "language", "tag", "every"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in _ANALYSED:
        builder.add_text_field(name, tokenizer_name=name, index_option="freq")
    builder.add_text_field("words", tokenizer_name="words", index_option="basic")
    builder.add_bytes_field("passage", stored=True)
    return builder.build()


def _document(passage: Mapping[str, Any]) -> tantivy.Document:
    text = index_text(passage)
    return tantivy.Document(
        id=[passage["id"]],
        document=[passage["document"]],
        language=[passage["language"]],
        tag=list(passage["tags"]),
        every=["1"],
        words=[text],
        passage=[orjson.dumps(passage)],
        **{name: [text] for name in _ANALYSED},
    )


def _hit(score: float, stored: tantivy.Document) -> Hit:
    return Hit(stored["id"][0], score, stored["passage"][0])


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left" in str(error) or "StorageFull" in str(error)
