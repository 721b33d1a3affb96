"""The whole way from judged data to a promoted model, on a few sentences and a tiny BERT."""

import json
import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from services.reranking.cross_encoder import OnnxCrossEncoder
from services.reranking.domain import TimeLeft
from workshop import train_reranker
from workshop.reranker_data import (
    Bm25,
    Collection,
    Group,
    Query,
    fitz_gov,
    handbook,
    only_pages,
    training_groups,
)
from workshop.reranker_evaluation import Arm, Result, ndcg

WORDS = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta"]


@pytest.fixture
def fitz_folder(tmp_path):
    documents = [{"id": f"d{n}", "content": f"{WORDS[n % 8]} number {n}"} for n in range(40)]
    documents.append({"id": "same", "content": documents[0]["content"]})
    cases = {
        f"c{n}": {"query": f"question {n}", "relevant_docs": [f"d{n}", f"d{(n + 1) % 40}"]}
        for n in range(40)
    }
    cases["none"] = {"query": "unanswerable", "relevant_docs": [], "decoy_docs": ["d1"]}
    cases["copy"] = {"query": "about the copy", "relevant_docs": ["same"]}
    for name, value in (
        ("corpus/documents.jsonl", "\n".join(map(json.dumps, documents))),
        ("queries/query_mappings.json", json.dumps({"mappings": {"grounding": cases}})),
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_text(value)
    return tmp_path


def test_held_out_queries_share_nothing_with_training(fitz_folder):
    train, held_out = fitz_gov(fitz_folder, held_out=8)
    assert len(held_out.queries) == 8
    assert train.queries
    seen = set().union(*(query.relevant for query in train.queries))
    assert not seen & set().union(*(query.relevant for query in held_out.queries))
    assert not {q.text for q in train.queries} & {q.text for q in held_out.queries}
    assert "same" not in train.passages  # one passage for one text
    everything = train.queries + held_out.queries
    assert "unanswerable" not in {query.text for query in everything}


@pytest.fixture
def book_root(tmp_path):
    for language, title, heading in (
        ("en", "Breakers", "When it opens"),
        ("pt", "Disjuntores", "Quando abre"),
    ):
        page = tmp_path / f"handbook/{language}/breakers.md"
        page.parent.mkdir(parents=True)
        page.write_text(
            f"---\ntitle: {title}\n---\n# {title}\n\nOpening.\n\n"
            f"## {heading}\n\nAfter five failures.\n"
        )
    rows = [
        {
            "id": "1",
            "split": "train",
            "question": "When?",
            "language": "en",
            "relevant": ["en/breakers#when-it-opens"],
        },
        {
            "id": "2",
            "split": "train",
            "question": "And then?",
            "language": "en",
            "relevant": ["en/breakers"],
            "history": ["When?"],
        },
        {
            "id": "3",
            "split": "test",
            "question": "Quando?",
            "language": "pt",
            "relevant": ["pt/breakers#quando-abre"],
        },
        {"id": "4", "split": "train", "question": "Price?", "language": "en", "relevant": []},
    ]
    questions = tmp_path / "handbook/questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_handbook_sections_are_passages_and_questions_go_by_split(book_root):
    book = handbook(book_root, "train")
    assert book.passages == {
        "en/breakers": "Breakers\nOpening.",
        "en/breakers#when-it-opens": "Breakers — When it opens\nAfter five failures.",
        "pt/breakers": "Disjuntores\nOpening.",
        "pt/breakers#quando-abre": "Disjuntores — Quando abre\nAfter five failures.",
    }
    assert [query.id for query in book.queries] == ["1"]
    assert [query.id for query in handbook(book_root, "test").queries] == ["3"]


def test_training_sees_only_pages_of_its_split():
    passages = {"en/a": "x", "en/a#s": "x", "pt/a": "x", "en/b": "x"}
    queries = [Query("1", "q", "en", frozenset({"en/a#s"}))]
    book = Collection("book", passages, queries)
    assert set(only_pages(book, queries).passages) == {"en/a", "en/a#s", "pt/a"}


def test_bm25_stems_and_survives_any_text():
    bm25 = Bm25({"a": "breakers opened", "b": "os disjuntores abriram", "c": "rate limits"})
    assert bm25.search("breaker opens", "en", 5) == ["a"]
    assert bm25.search("disjuntor", "pt", 5) == ["b"]
    assert bm25.search('AND "(:*', "en", 5) == []


def test_hard_negatives_are_never_relevant():
    passages = {f"p{n}": f"breaker state {n}" for n in range(12)}
    queries = [Query("1", "breaker state", "en", frozenset({"p1", "p2"}))]
    groups = training_groups(Collection("c", passages, queries), negatives=3, repeats=4)
    assert len(groups) == 4
    for group in groups:
        assert group.passages[0] in {passages["p1"], passages["p2"]}
        assert not {passages["p1"], passages["p2"]} & set(group.passages[1:])
        assert len(set(group.passages)) == 4


def test_ndcg_of_known_rankings():
    queries = [
        Query("1", "q", "en", frozenset({"a"})),
        Query("2", "q", "en", frozenset({"a", "b"})),
        Query("3", "q", "en", frozenset({"z"})),
    ]
    collection = Collection("c", {}, queries)
    values = ndcg(collection, [["x", "a"], ["b", "a"], ["x", "y"]])
    assert values == pytest.approx([1 / np.log2(3), 1.0, 0.0])


@pytest.fixture
def tiny_bert(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch").manual_seed(7)
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_training_learns_and_the_int8_export_agrees(tiny_bert, tmp_path):
    import torch

    from workshop.reranker_export import export_int8
    from workshop.reranker_training import train_cross_encoder

    # The passage that repeats the query's word is the relevant one.
    groups = [
        Group(
            word, [f"{word} {other}", *(f"{wrong} {other}" for wrong in WORDS if wrong != word)][:4]
        )
        for word in WORDS
        for other in WORDS[:4]
    ]
    losses = []
    model, tokenizer = train_cross_encoder(
        tiny_bert,
        groups,
        epochs=150,
        max_minutes=math.inf,  # the learning rate follows the clock too: every run would be another
        max_tokens=16,
        learning_rate=1e-3,
        batch_groups=8,
        threads=1,
        seed=7,
        on_step=lambda done, loss: losses.append(loss),
    )
    assert losses[-1] < losses[0] * 0.7
    model.save_pretrained(tmp_path / "torch")
    tokenizer.save_pretrained(tmp_path / "torch")
    export_int8(tmp_path / "torch", tmp_path / "out", max_tokens=16)
    engine = OnnxCrossEncoder(tmp_path / "out", threads=1)
    assert engine.max_tokens == 16
    passages = {f"p{n}": f"{a} {b}" for n, (a, b) in enumerate(pairwise(WORDS))}
    queries = [Query(str(n), f"{a} {a}", "en", frozenset()) for n, a in enumerate(WORDS)]
    book = Collection("book", passages | {"all": " ".join(WORDS)}, queries)
    # Passages that hold the word equally often score almost alike, so that their order may turn.
    assert train_reranker.agreement(model, tokenizer, engine, book) > 0.5
    pairs = [f"{a} {b}" for a in WORDS for b in WORDS if a != b]
    with torch.inference_mode():
        inputs = tokenizer(["alpha"] * len(pairs), pairs, padding=True, return_tensors="pt")
        wanted = model(**inputs).logits[:, 0].numpy()
    scores = np.array(engine.score("alpha", pairs, TimeLeft(10)))
    exported = np.log(scores / (1 - scores))
    assert np.corrcoef(wanted, exported)[0, 1] > 0.98
    assert np.abs(wanted - exported).max() < 0.15 * np.ptp(wanted)
    texts = [f"{word} delta" for word in WORDS]
    together = engine.score("alpha", texts, TimeLeft(10))
    alone = [engine.score("alpha", [text], TimeLeft(10))[0] for text in texts]
    assert together == pytest.approx(alone, abs=1e-5)


def result(name, before, late, cross):
    arms = [Arm("late-interaction", late, [2.0]), Arm("cross-encoder", cross, [400.0])]
    return Result(name, len(before), Arm("first stage", before, []), arms)


def test_gain_and_table_show_what_the_queries_say():
    results = [result("fitz-gov", [0.5] * 20, [0.7] * 20, [0.4] * 20)]
    assert train_reranker.gain(results, "late-interaction").verdict == "better"
    assert train_reranker.gain(results, "cross-encoder").verdict == "worse"
    assert "| late-interaction | 0.700 | +0.200 [+0.200, +0.200] | 2 |" in train_reranker.table(
        results
    )


RUN = {
    "date": "2026-01-01",
    "machine": "test",
    "minutes": 1.0,
    "loss": 0.5,
    "fitz_gov_queries": 3,
    "handbook_questions": 2,
    "handbook_groups": 6,
    "data_sha256": "00",
    "options": {"epochs": 1, "max_minutes": 1.0, "max_tokens": 16, "negatives": 3, "threads": 1},
}


@pytest.mark.parametrize(("after", "promoted"), [(0.9, True), (0.5, False), (0.1, False)])
def test_only_a_better_model_is_promoted(tmp_path, monkeypatch, after, promoted):
    work, target = tmp_path / "home/reranker", tmp_path / "promoted"
    work.mkdir(parents=True)
    target.mkdir()
    (target / "model.onnx").write_bytes(b"old")
    (work / "training.json").write_text(json.dumps(RUN))

    def export(trained, folder, *, max_tokens):
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx").write_bytes(b"new")
        return folder / "model.onnx"

    fakes = {
        "PROMOTED": target,
        "load_trained": lambda folder: (None, None),
        "export_int8": export,
        "OnnxCrossEncoder": lambda *_, **__: None,
        "agreement": lambda *_: 0.99,
        "handbook": lambda *_: None,
        "fitz_gov": lambda *_: (None, None),
        "judge": lambda *_: [result("c", [0.5] * 9, [0.6] * 9, [after] * 9)],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(train_reranker, name, fake)
    monkeypatch.setattr(train_reranker.models, "ensure", lambda name: tmp_path)
    monkeypatch.setattr(train_reranker.paths, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(train_reranker.paths, "ROOT", tmp_path)
    command = partial(train_reranker.command, reuse=True, epochs=1, max_minutes=3.0, threads=1)
    command(seed=7, promote_anyway=False)
    assert (target / "model.onnx").read_bytes() == (b"new" if promoted else b"old")
    assert (target / "README.md").exists() == promoted
    written = (work / "candidate/README.md").read_text()
    assert "Kendall's tau 0.990" in written
    assert ("It beats" in written) == promoted
    command(seed=7, promote_anyway=True)
    assert (target / "model.onnx").read_bytes() == b"new"
