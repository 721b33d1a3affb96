"""The keyword index without the service."""

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.sparse_retrieval import domain, quality
from services.sparse_retrieval.domain import (
    Filter,
    IndexFull,
    IndexLocked,
    KeywordIndex,
    index_text,
)

ROOT = Path(__file__).parents[3]


def passage(name, text, *, language="en", document=None, tags=(), title="", heading=""):
    return {
        "id": name,
        "document": document or name,
        "title": title,
        "heading": heading,
        "position": 0,
        "language": language,
        "tags": list(tags),
        "text": text,
    }


@pytest.fixture
def index():
    with KeywordIndex() as index:
        index.put(
            [
                passage("en/breaker", "A circuit breaker opens after repeated failures."),
                passage("en/kubernetes", "Kubernetes restarts a failing pod.", tags=["ops"]),
                passage(
                    "pt/disjuntor",
                    "O disjuntor abre após falhas; a organização observa.",
                    language="pt",
                ),
                passage(
                    "pt/kubernetes", "O Kubernetes reinicia um pod.", language="pt", tags=["ops"]
                ),
            ]
        )
        yield index


def ids(hits):
    return [hit.id for hit in hits]


def test_stems_match_within_a_language(index):
    assert ids(index.search("breakers opening", language="en")) == ["en/breaker"]
    assert ids(index.search("organizações", language="pt")) == ["pt/disjuntor"]


def test_a_portuguese_question_may_lack_its_accents(index):
    assert ids(index.search("organizacao", language="pt")) == ["pt/disjuntor"]
    assert ids(index.search("apos", language="pt")) == ["pt/disjuntor"]


def test_a_term_that_both_languages_share_is_found_across_them(index):
    for language in ("en", "pt", None, "es"):
        found = set(ids(index.search("kubernetes", language=language)))
        assert found == {"en/kubernetes", "pt/kubernetes"}, language


def test_without_a_language_each_analysis_is_tried(index):
    assert ids(index.search("breakers"))[0] == "en/breaker"
    assert ids(index.search("organizações"))[0] == "pt/disjuntor"


def test_function_words_alone_still_search(index):
    assert "en/kubernetes" in ids(index.search("a", language="en"))


def test_function_words_do_not_find_what_content_words_do_not(index):
    assert ids(index.search("is there a breaker?", language="en")) == ["en/breaker"]


def test_the_score_is_bm25():
    """One term, by hand: idf · tf·(k1+1) / (tf + k1·(1 − b + b·dl/avgdl)), k1 = 1.2, b = 0.75.

    Both passages have four terms, so the length factor is 1.
    """
    with KeywordIndex() as index:
        index.put([passage("a", "red red green blue"), passage("b", "one two three four")])
        [hit] = index.search("red", language="en")
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert hit.score == pytest.approx(idf * 2 * 2.2 / (2 + 1.2), rel=1e-5)


def test_a_repeated_query_term_counts_twice(index):
    once = index.search("breaker", language="en")[0].score
    assert index.search("breaker breaker", language="en")[0].score == pytest.approx(2 * once)


@pytest.mark.parametrize(
    "query",
    [
        'title:"a" AND (b OR',
        "*",
        "id:en/breaker",
        "[a TO z]",
        "-breaker",
        "a^9 ~2 \\",
        "'; DROP TABLE passages; --",
        "\x00\n\t",
        "?!…",
        "x" * 4000,
        "🙂",
    ],
)
def test_a_query_is_plain_words(index, query):
    for language in ("en", "pt", None):
        assert all(hit.score > 0 for hit in index.search(query, language=language))


def test_a_minus_does_not_exclude_and_a_field_name_is_a_word(index):
    assert ids(index.search("-breaker", language="en")) == ["en/breaker"]
    assert ids(index.search("id:pod", language="en")) == ids(index.search("pod", language="en"))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(language=["pt"]), {"pt/kubernetes"}),
        (Filter(document=["en/kubernetes", "none"]), {"en/kubernetes"}),
        (Filter(tag=["ops"]), {"en/kubernetes", "pt/kubernetes"}),
        (Filter(tag=["ops"], language=["en"]), {"en/kubernetes"}),
        (Filter(tag=["none"]), set()),
        (Filter(tag=[]), set()),
    ],
)
def test_filters_narrow_and_do_not_change_scores(index, where, expected):
    scores = {hit.id: hit.score for hit in index.search("kubernetes")}
    found = {hit.id: hit.score for hit in index.search("kubernetes", where=where)}
    assert found == {name: scores[name] for name in expected}


def test_title_and_heading_are_indexed():
    assert index_text(passage("a", "body", title="T", heading="H")) == "T — H\nbody"
    assert index_text(passage("a", "body", title="T")) == "T\nbody"
    assert index_text(passage("a", "body", heading="H")) == "body"
    with KeywordIndex() as index:
        index.put([passage("a", "body", title="Timeouts", heading="Retry storms")])
        assert ids(index.search("storm timeout", language="en")) == ["a"]


def test_ties_are_in_order_of_id_however_they_were_written():
    names = [f"p{number:02}" for number in range(40)]
    for order in (names, names[::-1]):
        with KeywordIndex() as index:
            for name in order:
                index.put([passage(name, "the same words")])
            assert ids(index.search("words", language="en", top_k=5)) == names[:5]


def test_a_passage_takes_the_place_of_the_one_with_its_id(index):
    before = len(index)
    assert index.put([passage("en/breaker", "Now about bulkheads.")]) == 1
    assert len(index) == before
    assert index.search("breaker", language="en") == []
    [hit] = index.search("bulkhead", language="en")
    assert hit.passage["text"] == "Now about bulkheads."


def test_delete_by_document_and_by_id():
    with KeywordIndex() as index:
        index.put([passage(f"d#{n}", "text", document="d") for n in range(3)])
        index.put([passage("e", "text")])
        assert index.delete(documents=["d"], ids=["e", "none"]) == 4
        assert index.delete(documents=["d"]) == 0
        assert len(index) == 0
        assert index.search("text", language="en") == []


def test_statistics_forget_what_was_replaced():
    """Scores depend on what is stored, not on how often it was rewritten."""
    texts = [passage(f"p{n}", f"red {'green ' * n}") for n in range(10)]
    with KeywordIndex() as fresh, KeywordIndex() as rewritten:
        fresh.put(texts)
        for round_ in range(5):
            rewritten.put([{**item, "text": f"red red blue {round_}"} for item in texts])
        rewritten.put(texts)
        expected = [(hit.id, hit.score) for hit in fresh.search("red", language="en")]
        assert [(hit.id, hit.score) for hit in rewritten.search("red", language="en")] == expected


def test_the_vocabulary_has_words_as_written_with_their_document_frequencies(index):
    vocabulary = index.vocabulary()
    assert vocabulary.terms["kubernetes"] == 2
    assert vocabulary.terms["organização"] == 1
    assert vocabulary.terms["failures"] == 1
    assert index.vocabulary() is vocabulary
    index.delete(ids=["en/kubernetes"])
    assert index.vocabulary().terms["kubernetes"] == 1
    assert index.vocabulary().version != vocabulary.version


def test_equal_content_has_an_equal_vocabulary_version():
    versions = set()
    for texts in (["a b", "c"], ["c", "a b"]):
        with KeywordIndex() as index:
            index.put([passage(str(number), text) for number, text in enumerate(texts)])
            versions.add(index.vocabulary().version)
    assert len(versions) == 1


def test_an_index_on_disk_is_there_after_reopening(tmp_path):
    with KeywordIndex(tmp_path) as index:
        index.put([passage("a", "durable words")])
    with KeywordIndex(tmp_path) as index:
        assert ids(index.search("durable", language="en")) == ["a"]


def test_a_folder_has_one_owner(tmp_path):
    with (
        KeywordIndex(tmp_path),
        pytest.raises(IndexLocked, match=r"open in another process.*SPARSE_DATA_DIR"),
    ):
        KeywordIndex(tmp_path)
    KeywordIndex(tmp_path).close()


def test_waiting_writes_share_a_commit(tmp_path, monkeypatch):
    with KeywordIndex(tmp_path) as index:
        groups = []
        commit = index._commit
        first_is_in, go_on = threading.Event(), threading.Event()

        def slow_commit(group):
            groups.append(len(group))
            first_is_in.set()
            go_on.wait(5)
            commit(group)

        monkeypatch.setattr(index, "_commit", slow_commit)
        writers = [
            threading.Thread(target=index.put, args=([passage(str(n), "word")],)) for n in range(6)
        ]
        writers[0].start()
        assert first_is_in.wait(5)
        for writer in writers[1:]:
            writer.start()
        while len(index._waiting) < 5:
            pass
        go_on.set()
        for writer in writers:
            writer.join(5)
        assert groups == [1, 5]
        assert len(index) == 6


def test_within_a_group_operations_apply_in_order():
    with KeywordIndex() as index:
        writes = [
            domain._Write(lambda pending: index_put(index, pending, "a")),
            domain._Write(lambda pending: index_delete(index, pending, "a")),
            domain._Write(lambda pending: index_put(index, pending, "b")),
        ]
        index._commit(writes)
        assert [write.done.result() for write in writes] == [1, 1, 1]
        assert ids(index.search("word", language="en")) == ["b"]


def index_put(index, pending, name):
    pending[name] = passage(name, "word", document="d")
    return 1


def index_delete(index, pending, name):
    found = index._current(name, pending) is not None
    pending[name] = None
    return int(found)


def test_searches_go_on_while_others_write(tmp_path):
    with KeywordIndex(tmp_path) as index:
        index.put([passage("kept", "steady word")])
        errors, stop = [], threading.Event()

        def search():
            while not stop.is_set():
                if "kept" not in ids(index.search("steady", language="en")):
                    errors.append("lost")

        searchers = [threading.Thread(target=search) for _ in range(2)]
        for searcher in searchers:
            searcher.start()
        for number in range(20):
            index.put([passage(f"n{number}", "steady stream")])
        stop.set()
        for searcher in searchers:
            searcher.join(5)
        assert errors == []
        assert len(index) == 21


def test_a_disk_without_room_refuses_and_keeps_nothing(tmp_path, monkeypatch):
    with KeywordIndex(tmp_path, min_free_bytes=1000) as index:
        index.put([passage("a", "kept")])
        monkeypatch.setattr(domain.shutil, "disk_usage", lambda _: SimpleNamespace(free=999))
        with pytest.raises(IndexFull, match="SPARSE_MIN_FREE_BYTES"):
            index.put([passage("b", "refused")])
        monkeypatch.undo()
        assert len(index) == 1
        index.put([passage("b", "accepted")])
        assert len(index) == 2


def test_a_commit_that_meets_a_full_disk_is_undone(tmp_path, monkeypatch):
    with KeywordIndex(tmp_path) as index:
        index.put([passage("a", "kept")])

        def full(writer, pending):
            writer.add_document(domain._document(pending["b"]))
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(index, "_replace", full)
        with pytest.raises(IndexFull):
            index.put([passage("b", "lost")])
        monkeypatch.undo()
        index.put([passage("c", "accepted")])
        assert ids(index.search("kept lost accepted", language="en")) == ["a", "c"]


CHILD = """
import itertools, sys
from services.sparse_retrieval.domain import KeywordIndex
index = KeywordIndex(sys.argv[1])
for number in itertools.count():
    passage = {"id": f"p{number}", "document": "d", "title": "", "heading": "", "position": 0,
               "language": "en", "tags": [], "text": f"word{number} common"}
    index.put([passage])
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_sigkill(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        for line in child.stdout:
            if int(line) >= 15:
                break
    finally:
        os.kill(child.pid, signal.SIGKILL)
    acknowledged = 15 + len(child.stdout.read().split())
    child.wait(10)
    with KeywordIndex(tmp_path) as index:
        for number in range(acknowledged + 1):
            assert ids(index.search(f"word{number}", language="en")) == [f"p{number}"]


def eval_dir():
    folder = Path(os.environ.get("WORKSHOP_EVAL_DIR", ROOT.parent / "shared" / "eval"))
    if not folder.is_dir():
        pytest.skip("no test collections: set WORKSHOP_EVAL_DIR to a folder of BEIR collections")
    return folder


@pytest.mark.parametrize(
    ("name", "language", "least"), [("xquad-en", "en", 0.95), ("faquad-pt", "pt", 0.89)]
)
def test_quality_on_a_real_collection(name, language, least):
    collection = quality.read(eval_dir() / name, language)
    with KeywordIndex() as index:
        index.put(collection.passages)
        assert quality.mean_ndcg(index, collection) >= least
        assert quality.mean_ndcg(index, collection, accents=False) >= least


def test_ndcg_by_hand():
    assert quality.ndcg(["a", "b"], {"a": 1}) == 1
    assert quality.ndcg(["b", "a"], {"a": 1}) == pytest.approx(1 / math.log2(3))
    assert quality.ndcg(["c", "a"], {"a": 2, "b": 1}) == pytest.approx(
        (2 / math.log2(3)) / (2 + 1 / math.log2(3))
    )
    assert quality.ndcg(["x"] * 10 + ["a"], {"a": 1}) == 0
