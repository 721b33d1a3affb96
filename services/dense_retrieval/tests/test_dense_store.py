"""Both stores, held to the same tests; then what is one store's own."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from services.dense_retrieval import domain as store_module
from services.dense_retrieval.domain import (
    Entry,
    Filter,
    ModelMismatch,
    Options,
    Parts,
    Space,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    WrongDimension,
    build_filter,
    open_store,
    point_id,
)
from services.dense_retrieval.vectors import decode, encode

ROOT = Path(__file__).parents[3]
MODELS = {"bilingual": "some/e5-small", "english": "minilm"}
KINDS = ["edge", "client"]


def passage(number, **changes):
    whole = {
        "id": f"p{number:03}",
        "document": f"d{number // 10}",
        "title": "Title",
        "heading": "",
        "position": number % 10,
        "language": "pt" if number % 2 else "en",
        "tags": ["even"] if number % 2 == 0 else ["odd", "third"],
        "text": f"text {number}",
    }
    return whole | changes


def corpus(count=40):
    """Passages with a bilingual vector each; the even ones have an English one too."""
    random = np.random.default_rng(1)
    bilingual = random.standard_normal((count, 8)).astype(np.float32)
    english = random.standard_normal((count, 4)).astype(np.float32)
    return [
        Entry(
            passage(number),
            {"bilingual": bilingual[number]}
            | ({"english": english[number]} if number % 2 == 0 else {}),
        )
        for number in range(count)
    ]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def store(kind, tmp_path):
    store = open_store(kind, tmp_path)
    store.put(MODELS, corpus())
    yield store
    store.close()


def ids(hits):
    return [hit.id for hit in hits]


def cosine_order(query, entries, role="bilingual"):
    scored = []
    for entry in entries:
        if role in entry.vectors:
            vector = entry.vectors[role]
            cosine = vector @ query / np.linalg.norm(vector) / np.linalg.norm(query)
            scored.append((entry.passage["id"], float(cosine)))
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def test_order_and_scores_are_the_exact_cosine(store):
    random = np.random.default_rng(2)
    for _ in range(5):
        query = random.standard_normal(8).astype(np.float32)
        hits = store.search(query, using="bilingual", top_k=10)
        expected = cosine_order(query, corpus())[:10]
        assert ids(hits) == [name for name, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([s for _, s in expected], abs=1e-5)


def test_a_hit_brings_the_whole_passage(store):
    [hit] = store.search(corpus()[3].vectors["bilingual"], using="bilingual", top_k=1)
    assert hit.passage == passage(3)


def test_a_passage_without_that_vector_is_not_found(store):
    hits = store.search(np.ones(4, dtype=np.float32), using="english", top_k=40)
    assert len(hits) == 20
    assert all(hit.passage["tags"] == ["even"] for hit in hits)


@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        (Filter(language=["pt"]), lambda p: p["language"] == "pt"),
        (Filter(document=["d0", "d2", "none"]), lambda p: p["document"] in ("d0", "d2")),
        (Filter(tag=["third"]), lambda p: "third" in p["tags"]),
        (
            Filter(tag=["even"], document=["d1"]),
            lambda p: p["document"] == "d1" and "even" in p["tags"],
        ),
        (Filter(language=["pt"], tag=["even"]), lambda p: False),
        (Filter(tag=[]), lambda p: False),
    ],
)
def test_filters(store, where, keeps):
    hits = store.search(np.ones(8, dtype=np.float32), using="bilingual", top_k=50, where=where)
    assert set(ids(hits)) == {e.passage["id"] for e in corpus() if keeps(e.passage)}


def test_ties_are_in_order_of_id(kind, tmp_path):
    same = np.array([1, 2, 3], dtype=np.float32)
    store = open_store(kind, tmp_path)
    try:
        entries = [Entry(passage(number), {"bilingual": same}) for number in range(40)]
        store.put({"bilingual": "m"}, entries[20:])
        store.put({"bilingual": "m"}, entries[19::-1])
        assert ids(store.search(same, using="bilingual", top_k=5)) == [
            f"p{number:03}" for number in range(5)
        ]
    finally:
        store.close()


def test_a_passage_takes_the_place_of_the_one_with_its_id(store):
    vector = np.full(8, 3, dtype=np.float32)
    assert store.put(MODELS, [Entry(passage(4, text="new"), {"bilingual": vector})]) == 1
    assert len(store) == 40
    [hit] = store.search(vector, using="bilingual", top_k=1)
    assert (hit.id, hit.passage["text"]) == ("p004", "new")
    english = store.search(np.ones(4, dtype=np.float32), using="english", top_k=40)
    assert "p004" not in ids(english)  # its old English vector is gone


def test_delete_by_document_and_by_id(store):
    assert store.delete(documents=["d0"], ids=["p010", "p001", "none"]) == 11
    assert store.delete(documents=["d0"]) == 0
    assert len(store) == 29
    assert store.stats()["documents"] == 3


def test_nothing_named_is_nothing_deleted(store):
    assert store.delete() == 0
    assert store.delete(documents=[], ids=[]) == 0
    assert len(store) == 40


def test_a_store_uses_the_parts_that_it_is_given(kind, tmp_path):
    asked = []

    def first_language_only(qdrant, fields):
        asked.append(fields)
        return build_filter(qdrant, {"language": ["pt"]})

    parts = Parts(
        point_id=lambda name: point_id(name.lower()),
        build_filter=first_language_only,
        best=lambda fetch, top_k: list(fetch(top_k))[::-1],
    )
    store = open_store(kind, tmp_path, parts=parts)
    try:
        store.put(MODELS, [Entry(passage(n), entry.vectors) for n, entry in enumerate(corpus(6))])
        store.put(MODELS, [Entry(passage(1, id="P001"), corpus(2)[1].vectors)])  # one point
        hits = store.search(corpus()[3].vectors["bilingual"], using="bilingual", top_k=3)
        assert ids(hits)[-1] == "p003"  # the nearest comes last
        assert set(ids(hits)) == {"P001", "p003", "p005"}
        assert asked == [{}]
        assert store.delete(ids=["p001"]) == 1
    finally:
        store.close()


def test_stats(store, kind):
    assert store.stats() == {
        "passages": 40,
        "documents": 4,
        "models": {
            "bilingual": {"model": "some/e5-small", "dimensions": 8},
            "english": {"model": "minilm", "dimensions": 4},
        },
        "store": {"edge": "edge", "client": "client-local"}[kind],
    }


def test_another_model_is_refused_and_changes_nothing(store):
    entry = Entry(passage(1), {"bilingual": np.ones(8, dtype=np.float32)})
    with pytest.raises(ModelMismatch, match="were made by some/e5-small, these by other"):
        store.put({"bilingual": "other"}, [entry])
    with pytest.raises(ModelMismatch, match="no model is named for the bilingual vectors"):
        store.put({"english": "minilm"}, [entry])
    assert store.stats()["models"]["bilingual"]["model"] == "some/e5-small"
    assert len(store) == 40


def test_another_length_names_its_place(store):
    good = Entry(passage(90), {"bilingual": np.ones(8, dtype=np.float32)})
    short = Entry(passage(91), {"bilingual": np.ones(5, dtype=np.float32)})
    with pytest.raises(WrongDimension) as caught:
        store.put(MODELS, [good, short])
    assert caught.value.place == ("passages", 1, "vectors", "bilingual")
    assert len(store) == 40
    with pytest.raises(WrongDimension, match=r"has 5 numbers; the bilingual vectors .* have 8"):
        store.search(np.ones(5, dtype=np.float32), using="bilingual")


def test_the_way_out_of_a_mismatch_is_an_empty_store(store):
    vector = np.ones(3, dtype=np.float32)
    assert store.clear() == 40
    assert store.stats()["models"] == {}
    store.put({"bilingual": "other"}, [Entry(passage(1), {"bilingual": vector})])
    assert ids(store.search(vector, using="bilingual")) == ["p001"]
    store.delete(ids=["p001"])  # emptied one by one, it takes any model too
    store.put({"bilingual": "third"}, [Entry(passage(2), {"bilingual": vector[:2]})])
    assert store.stats()["models"]["bilingual"] == {"model": "third", "dimensions": 2}


def test_everything_is_there_after_reopening(kind, tmp_path):
    store = open_store(kind, tmp_path)
    store.put({"bilingual": MODELS["bilingual"]}, corpus(10)[1::2])
    store.put(MODELS, corpus(20)[10:])  # the English vectors come later
    before = store.stats()
    query = np.ones(8, dtype=np.float32)
    found = store.search(query, using="bilingual", top_k=5)
    store.close()
    again = open_store(kind, tmp_path)
    assert again.stats() == before
    assert ids(again.search(query, using="bilingual", top_k=5)) == ids(found)
    again.close()


def test_a_folder_has_one_owner(kind, store, tmp_path):
    with pytest.raises(StoreLocked, match=r"open in another process.*DENSE_DATA_DIR"):
        open_store(kind, tmp_path)


def test_an_empty_store_finds_nothing(kind, tmp_path):
    store = open_store(kind, tmp_path)
    assert store.search(np.ones(3, dtype=np.float32), using="bilingual") == []
    assert store.delete(documents=["d"]) == 0
    assert store.stats()["passages"] == 0
    store.close()


def test_a_disk_without_room_refuses_and_keeps_nothing(kind, tmp_path, monkeypatch):
    store = open_store(kind, tmp_path, options=Options(min_free_bytes=1000))
    entries = corpus(2)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=999))
    with pytest.raises(StoreFull, match="DENSE_MIN_FREE_BYTES"):
        store.put(MODELS, entries)
    monkeypatch.undo()
    assert len(store) == 0
    assert store.put(MODELS, entries) == 2
    store.close()


CHILD = """
import itertools, sys
import numpy as np
from services.dense_retrieval.domain import Entry, open_store
store = open_store(sys.argv[1], sys.argv[2])
for number in itertools.count():
    passage = {"id": f"p{number}", "document": "d", "title": "", "heading": "", "position": 0,
               "language": "en", "tags": [], "text": "t"}
    vector = np.array([1, number, number * number], dtype=np.float32)
    store.put({"bilingual": "m"}, [Entry(passage, {"bilingual": vector})])
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_sigkill(kind, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, kind, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in child.stdout:
            if int(line) >= 12:
                break
    finally:
        os.kill(child.pid, signal.SIGKILL)
    acknowledged = 13 + len(child.stdout.read().split())
    child.wait(10)
    store = open_store(kind, tmp_path)
    hits = store.search(np.ones(3, dtype=np.float32), using="bilingual", top_k=500)
    store.close()
    assert {f"p{number}" for number in range(acknowledged)} <= set(ids(hits))


def test_a_creation_that_was_cut_off_is_begun_anew(tmp_path):
    cut_off = tmp_path / "passages" / "shard" / "segments"
    cut_off.mkdir(parents=True)
    store = open_store("edge", tmp_path)
    assert store.put(MODELS, corpus(3)) == 3
    store.close()


def test_above_the_limit_a_graph_is_built_at_the_next_start_and_finds_the_same(tmp_path):
    options = Options(exact_below=300, hnsw_ef=128)
    entries = corpus(600)
    store = open_store("edge", tmp_path, options=options)
    store.put(MODELS, entries)
    store.close()
    store = open_store("edge", tmp_path, options=options)
    assert store._shard.info().indexed_vectors_count >= 600
    random = np.random.default_rng(3)
    shares = []
    for _ in range(20):
        query = random.standard_normal(8).astype(np.float32)
        found = set(ids(store.search(query, using="bilingual", top_k=10)))
        exact = {name for name, _ in cosine_order(query, entries)[:10]}
        shares.append(len(found & exact) / 10)
    assert np.mean(shares) >= 0.95
    store.put(MODELS, [Entry(passage(700), {"bilingual": np.full(8, 5, dtype=np.float32)})])
    hits = store.search(np.full(8, 5, dtype=np.float32), using="bilingual", top_k=1)
    assert ids(hits) == ["p700"]  # what came after the graph is found too
    store.close()


@pytest.fixture
def server(monkeypatch):
    """One collection for all stores opened by URL: qdrant-client's memory plays the server."""
    from services.dense_retrieval import client_store

    shared = client_store.QdrantClient(":memory:")
    monkeypatch.setattr(client_store, "QdrantClient", lambda **_: shared)
    return shared


@pytest.mark.filterwarnings("ignore:(Payload indexes|Local mode):UserWarning")
def test_two_instances_on_one_server_see_what_the_other_writes(server):
    one, other = (open_store("client", url="http://qdrant:6333") for _ in range(2))
    entries = corpus(20)
    other.put(MODELS, entries[:10])
    assert (len(one), one.search(entries[0].vectors["bilingual"], using="bilingual")) == (0, [])
    one.refresh()
    hits = one.search(entries[0].vectors["bilingual"], using="bilingual", top_k=1)
    assert (len(one), [hit.id for hit in hits]) == (10, ["p000"])
    one.put(MODELS, entries[10:])
    assert other.delete(documents=["d1"]) == 10
    one.refresh()
    assert one.delete(documents=["d0"]) == 10
    server.delete_collection = None  # not called: another may be filling the empty collection
    assert other.put(MODELS, entries[:5]) == 5
    del server.delete_collection
    assert one.clear() == 5
    other.refresh()
    assert (len(other), other.spaces) == (0, {})


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(StoreUnavailable, match="does not answer"):
        open_store("client", url="http://127.0.0.1:1")


def test_ids_are_name_based_uuids():
    assert point_id("en/a#b") == point_id("en/a#b") != point_id("en/a")
    assert uuid.UUID(point_id("en/a")).version == 5


def test_a_vector_s_name_carries_its_model_and_length():
    space = Space("bilingual", "intfloat/multilingual-e5-small", 384)
    assert space.name == "bilingual@intfloat%2Fmultilingual-e5-small@384"
    assert Space.parse(space.name) == space


@pytest.mark.parametrize("value", [[1, -2.5, 3], np.array([1, -2.5, 3], dtype=np.float32)])
def test_numbers_and_base64_are_the_same_vector(value):
    assert decode(value).tolist() == decode(encode(decode(value))).tolist() == [1, -2.5, 3]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "1 to 4096"),
        ("", "1 to 4096"),
        ([1.0] * 4097, "1 to 4096"),
        ([[1.0, 2.0]], "not a number"),
        ([0.0, 0.0], "all zeros"),
        ([1.0, float("nan")], "not finite"),
        ([1.0, float("inf")], "not finite"),
        ([1.0, 1e300], "not finite"),
        ([1.0, 10**400], "not a number"),
        ([1.0, None], "not a number"),
        ([1.0, "2"], "not a number"),
        ([True, False], "not a number"),
        (["a"], "not a number"),
        ([[1.0], [1.0, 2.0]], "not a number"),
        ("not base64!", "not valid base64"),
        ("AAAA", "whole number of float32"),
        (encode(np.array([np.nan], dtype=np.float32)), "not finite"),
        ({"a": 1}, "list of numbers or base64"),
        (3, "list of numbers or base64"),
    ],
)
def test_what_is_no_vector_says_why(value, why):
    with pytest.raises(ValueError, match=why):
        decode(value)
