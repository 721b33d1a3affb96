import json

import pytest

from workshop.errors import WorkshopError
from workshop.evaluation.answers import ask_all, contains, is_exact
from workshop.evaluation.collections import Collection, Query, load_beir, load_handbook
from workshop.evaluation.intervals import bootstrap
from workshop.evaluation.ranking import StageRun, per_query
from workshop.measure import interleaved
from workshop.paths import ROOT


def beir(folder, judged="q1\tp1\t1\n"):
    (folder / "qrels").mkdir()
    (folder / "corpus.jsonl").write_text(
        json.dumps({"_id": "p1", "title": "Breakers", "text": "It opens after five failures."})
        + "\n"
        + json.dumps({"_id": "p2", "text": "O disjuntor abre depois de cinco falhas seguidas."})
        + "\n",
        encoding="utf-8",
    )
    (folder / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "When?", "metadata": {"answers": ["five", "5"]}}\n'
        '{"_id": "q2", "text": "Unjudged?"}\n',
        encoding="utf-8",
    )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def test_a_beir_folder_is_read_with_languages_and_judged_queries_only(tmp_path):
    collection = load_beir(beir(tmp_path))
    assert [passage["language"] for passage in collection.passages] == ["en", "pt"]
    assert [query.id for query in collection.queries] == ["q1"]
    assert collection.queries[0].answers == [["five", "5"]]
    assert collection.qrels == {"q1": {"p1": 1}}


def test_a_folder_without_judgements_says_what_to_check(tmp_path):
    with pytest.raises(WorkshopError, match="judges none"):
        load_beir(beir(tmp_path, judged="other\tp1\t1\n"))


def test_a_folder_in_another_layout_is_named(tmp_path):
    with pytest.raises(WorkshopError, match=r"qrels.*test\.tsv"):
        load_beir(tmp_path)


def test_a_broken_line_is_named_by_its_number(tmp_path):
    folder = beir(tmp_path)
    with (folder / "queries.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(WorkshopError, match="line 3"):
        load_beir(folder)


def test_a_page_and_its_translation_are_judged_as_one():
    collection = load_handbook(ROOT / "handbook", "validation")
    ranking = [("pt/bm25", 3.0), ("en/bm25", 2.0), ("en/hnsw", 1.0)]
    assert list(collection.units(ranking).values()) == [3.0, 1.0]


def ranked(ranking, grades):
    collection = Collection("c", [], [Query("q", "?")], {"q": grades})
    run = StageRun("s", {"q": ranking}, {"q": 1.0})
    return {name: values["q"] for name, values in per_query(run, collection, ["q"]).items()}


def test_metrics_of_a_ranking_that_can_be_checked_by_hand():
    scores = ranked([("a", 3.0), ("b", 2.0), ("c", 1.0)], {"b": 1, "z": 1})
    assert scores["MRR"] == pytest.approx(0.5)
    assert scores["recall@100"] == pytest.approx(0.5)
    assert scores["nDCG@10"] == pytest.approx(0.6309 / 1.6309, abs=1e-4)


def test_a_question_without_any_hit_counts_as_zero():
    assert ranked([("a", 1.0)], {"z": 1}) == {"nDCG@10": 0.0, "recall@100": 0.0, "MRR": 0.0}


def test_an_interval_holds_its_mean_and_its_verdict_follows_zero():
    up = bootstrap([0.1, 0.2, 0.15, 0.1, 0.2, 0.18] * 5)
    assert up.low < up.mean < up.high
    assert up.verdict == "better"
    assert bootstrap([-0.1, -0.2, -0.15] * 10).verdict == "worse"
    assert bootstrap([-0.2, 0.2] * 10).verdict == "same"


def test_the_same_values_give_the_same_interval():
    values = [0.1, 0.5, 0.3, 0.9]
    assert bootstrap(values) == bootstrap(values)


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("It waits 30 s.", "30", True),
        ("It waits 300 s.", "30", False),
        ("Após cinco falhas", "apos CINCO", True),
        ("cost is 72 % less", "72 %", True),
        ("state-of-the-art", "state", True),
    ],
)
def test_keywords_match_whole_words_without_accents_and_case(text, wanted, found):
    assert contains(text, wanted) is found


def test_an_answer_must_say_every_thing_in_one_of_its_forms():
    query = Query("q", "?", answers=[["five", "5"], ["seconds"]])
    assert is_exact(query, "It takes 5 seconds.")
    assert not is_exact(query, "It takes 5 minutes.")


def answer(**changes):
    source = {"number": 1, "passages": ["gold"]}
    other = {"number": 2, "passages": ["other"]}
    return {
        "answer": "five",
        "language": "en",
        "kind": "generated",
        "refused": False,
        "citations": [{"number": 1}, {"number": 2}],
        "sources": [source, other],
        "groundedness": 1.0,
        "degraded": [],
        "first_token_ms": 100.0,
    } | changes


def test_answers_are_graded_and_summed_up():
    queries = [Query("a", "?", answers=[["five"]]), Query("b", "?", answerable=False)]
    collection = Collection("c", [], queries, {"a": {"gold": 1}})
    replies = {
        0: answer(),
        1: answer(kind="refusal", refused=True, citations=[], degraded=["reranking"]),
    }
    calls = iter(range(2))
    summary = ask_all(lambda *_: replies[next(calls)], collection, queries).summary()
    assert summary["exact"] == 1.0
    assert summary["citation precision"] == 0.5
    assert summary["refused when unanswerable"] == 1.0
    assert summary["refused when answerable"] == 0.0
    assert summary["degraded"] == 0.5


def test_arms_take_turns_and_warm_up_is_not_counted():
    order = []
    arms = {"a": lambda n: order.append(("a", n)), "b": lambda n: order.append(("b", n))}
    times = interleaved(arms, 4, warm_up=1)
    assert [time.name for time in times] == ["a", "b"]
    assert [len(time.milliseconds) for time in times] == [4, 4]
    firsts = [order[place][0] for place in range(0, len(order), 2)]
    assert set(firsts) == {"a", "b"}
