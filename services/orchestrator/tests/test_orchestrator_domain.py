import pytest

from services.orchestrator.domain import (
    RetryBudget,
    Trace,
    cut_sources,
    extractive_answer,
    index_text,
    sentences,
)


def passage(text, name="p"):
    return {
        "id": name,
        "document": name,
        "title": "T",
        "heading": "",
        "language": "en",
        "text": text,
    }


def test_index_text_joins_title_heading_and_text():
    parts = {"title": "Breakers", "heading": "Opening", "text": "After five failures."}
    assert index_text(parts) == "Breakers — Opening\nAfter five failures."
    assert index_text(parts | {"heading": ""}) == "Breakers\nAfter five failures."
    assert index_text(parts | {"heading": "", "title": ""}) == "After five failures."


def test_sentences_do_not_break_inside_numbers():
    assert sentences("It took 1.5 s. Then it stopped.\nÉ o fim.") == [
        "It took 1.5 s.",
        "Then it stopped.",
        "É o fim.",
    ]


def test_extractive_answer_cites_each_sentence_by_its_source():
    sources = [{"number": 1, "text": "One. More."}, {"number": 2, "text": "Two."}]
    assert extractive_answer(sources) == "One. [1] Two. [2]"


def test_cut_sources_keeps_whole_sentences_within_the_length():
    text = "Alpha is first. Beta is second. Gamma is third."
    sources = cut_sources([passage(text, "a"), passage("Delta.", "b")], 32)
    assert [source["text"] for source in sources] == ["Alpha is first. Beta is second."]


def test_cut_sources_keeps_one_sentence_even_if_it_is_too_long():
    sources = cut_sources([passage("A very long single sentence here.")], 5)
    assert sources[0]["text"] == "A very long single sentence here."
    assert sources[0]["number"] == 1


def test_a_dependency_that_always_fails_gets_few_more_calls():
    budget = RetryBudget(ratio=0.1, burst=5)
    retries = 0
    for _ in range(1000):
        budget.record_call()
        retries += budget.take()
    assert 100 <= retries <= 106


def test_a_failed_stage_is_marked_and_timed():
    trace = Trace()
    with pytest.raises(ValueError, match="x"), trace.stage("search"):
        raise ValueError("x")
    assert trace.timings[0].status == "failed"
    assert trace.timings[0].ms >= 0
