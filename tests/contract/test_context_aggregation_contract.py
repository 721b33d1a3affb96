"""The contract of context_aggregation."""

import re

import pytest

pytestmark = pytest.mark.system

BREAKER = (
    "Calls to a remote service can hang for minutes. A circuit breaker opens after five failures "
    "in a row. Birds sing in the morning, and nobody knows why."
)
CACHE = "A cache keeps answers for later. Entries expire after sixty seconds. Cats sleep a lot."
DISJUNTOR = "Um disjuntor abre após cinco falhas seguidas. Os pássaros cantam de manhã."


def passage(document, text, *, position=0, language="en", title="", heading=""):
    return {
        "id": f"{document}#{position}",
        "document": document,
        "title": title,
        "heading": heading,
        "position": position,
        "language": language,
        "tags": [],
        "text": text,
        "score": 0.5,
    }


def build(http, query, passages, language="en", **body):
    request = {"query": query, "language": language, "passages": passages, **body}
    response = http.post("/v1/context", json=request)
    assert response.status_code == 200, response.text
    return response.json()


def test_sources_are_numbered_in_the_context(http):
    built = build(
        http,
        "When does a circuit breaker open, and when do cache entries expire?",
        [passage("en/breaker", BREAKER), passage("en/cache", CACHE)],
    )
    assert [source["number"] for source in built["sources"]] == [1, 2]
    assert re.findall(r"^\[(\d)\]", built["context"], re.MULTILINE) == ["1", "2"]
    for source in built["sources"]:
        assert source["text"] in built["context"]
        assert source["passages"] == [source["id"]]


@pytest.mark.parametrize("budget", [1, 15, 30, 60, 1000])
def test_the_budget_holds_and_no_sentence_is_cut(http, budget):
    passages = [passage("en/breaker", BREAKER), passage("en/cache", CACHE)]
    built = build(http, "when does the breaker open?", passages, max_tokens=budget)
    assert built["tokens"] <= budget
    whole = [s.strip() for text in (BREAKER, CACHE) for s in re.findall(r"[^.]+\.", text)]
    for source in built["sources"]:
        assert all(s.strip() in whole for s in re.findall(r"[^.]+\.?", source["text"]))
    placed = {name for source in built["sources"] for name in source["passages"]}
    assert placed | {item["id"] for item in built["dropped"]} == {p["id"] for p in passages}


def test_the_sentence_that_answers_survives_a_tight_budget(http):
    filler = passage("en/cache", CACHE * 3)
    built = build(
        http,
        "After how many failures does a circuit breaker open?",
        [passage("en/breaker", BREAKER), filler],
        max_tokens=25,
    )
    assert "five failures" in built["context"]


def test_duplicates_are_dropped_with_a_reason(http):
    built = build(http, "breaker", [passage("en/a", BREAKER), passage("en/b", BREAKER)])
    assert [source["id"] for source in built["sources"]] == ["en/a#0"]
    assert [item["id"] for item in built["dropped"]] == ["en/b#0"]
    assert built["dropped"][0]["reason"]


def test_of_a_section_and_its_translation_one_stays(http):
    pair = [passage("en/breaker", BREAKER), passage("pt/breaker", DISJUNTOR, language="pt")]
    for language, kept in (("en", "en/breaker#0"), ("pt", "pt/breaker#0")):
        built = build(http, "circuit breaker disjuntor", pair, language)
        assert [source["id"] for source in built["sources"]] == [kept]


def test_neighbours_are_merged(http):
    parts = [
        passage("en/a", "The breaker then closes.", position=2),
        passage("en/a", "The breaker opens.", position=1),
    ]
    built = build(http, "when does the breaker open and close?", parts)
    assert [source["passages"] for source in built["sources"]] == [["en/a#1", "en/a#2"]]


def test_the_best_come_first_and_max_passages_holds(http):
    many = [passage(f"en/{n}", f"Cache number {n} holds entry {n * 7}.") for n in range(5)]
    built = build(http, "what does the cache hold?", many, max_passages=3)
    assert [source["document"] for source in built["sources"]] == ["en/0", "en/1", "en/2"]


def test_nothing_in_nothing_out(http):
    assert build(http, "breaker", []) == {
        "context": "",
        "sources": [],
        "tokens": 0,
        "dropped": [],
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"query": ""}, "query"),
        ({"passages": "text"}, "passages"),
        ({"passages": [{"id": "a"}]}, "passages.0.text"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_passages": 0}, "max_passages"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_input_names_the_field(http, changes, field):
    body = {"query": "q", "language": "en", "passages": []} | changes
    response = http.post("/v1/context", json=body)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]
