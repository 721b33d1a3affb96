"""Building a context: what is dropped, what is chosen, how it is put together, what it costs."""

import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.context_aggregation.domain import (
    Counted,
    Options,
    Piece,
    build_context,
    find_duplicates,
    fit_budget,
)
from services.context_aggregation.segments import units


class Words:
    """Counts words and punctuation marks: the arithmetic of budgets can be checked by eye."""

    def count(self, text):
        return len(re.findall(r"\w+|[^\w\s]", text))


def passage(name, text, *, position=0, language="en", title="", heading=""):
    document = name.partition("#")[0]
    return {
        "id": name,
        "document": document,
        "title": title,
        "heading": heading,
        "position": position,
        "language": language,
        "tags": [],
        "text": text,
    }


BREAKER = (
    "Calls to a remote service can hang for minutes. A circuit breaker opens after five failures "
    "in a row. Birds sing in the morning. Nobody knows why they do so in autumn."
)
CACHE = "A cache keeps answers for later. Entries expire after sixty seconds. Cats sleep a lot."


def build(query, passages, tokens=1000, language="en", **options):
    return build_context(query, language, passages, tokens, Words(), Options(**options))


def test_sources_are_numbered_with_headings_best_first():
    built = build(
        "when does the breaker open?",
        [passage("en/a", BREAKER, title="Breakers", heading="Opening"), passage("en/b", CACHE)],
    )
    assert built.context.startswith("[1] Breakers — Opening\nCalls to a remote")
    assert "\n[2] A cache keeps" in built.context
    assert [source.number for source in built.sources] == [1, 2]
    assert built.sources[0].text == BREAKER
    assert built.tokens == Words().count(built.context)
    assert built.dropped == []


def test_the_sentence_that_answers_is_chosen_when_there_is_room_for_little():
    built = build(
        "after how many failures does a circuit breaker open?", [passage("a", BREAKER)], 18
    )
    assert built.context == ("[1] A circuit breaker opens after five failures in a row.")


def test_the_best_sentences_come_from_any_passage():
    built = build("when do cache entries expire?", [passage("a", BREAKER), passage("b", CACHE)], 11)
    assert built.context == "[1] Entries expire after sixty seconds."
    assert [(item.id, item.reason) for item in built.dropped] == [
        ("a", "no room in the token budget")
    ]


def test_stems_and_missing_accents_match():
    text = "Os gatos dormem muito. As métricas são exportadas pelo serviço. Chove em maio."
    built = build("como exportar metrica?", [passage("a", text, language="pt")], 12, language="pt")
    assert built.context == "[1] As métricas são exportadas pelo serviço."


def test_a_question_in_the_other_language_finds_cognates_and_numbers():
    text = "Cats sleep. Latency has a maximum of 300 ms here. Dogs bark at night."
    built = build("qual é a latência máxima em ms?", [passage("a", text)], 14, language="pt")
    assert built.context == "[1] Latency has a maximum of 300 ms here."


def test_near_duplicates_are_dropped_and_named():
    copy = BREAKER.replace("minutes", "hours")
    built = build(
        "breaker",
        [passage("a", BREAKER), passage("b", copy), passage("c", BREAKER), passage("d", CACHE)],
    )
    assert [source.id for source in built.sources] == ["a", "d"]
    assert {item.id: item.reason for item in built.dropped} == {
        "b": "duplicate of a",
        "c": "duplicate of a",
    }
    assert (
        len(build("breaker", [passage("a", BREAKER), passage("b", copy)], duplicates=False).sources)
        == 2
    )


def test_a_passage_inside_another_is_a_duplicate_but_a_shared_sentence_is_not():
    inside = build("breaker", [passage("a", BREAKER), passage("b", BREAKER.split(" Birds")[0])])
    assert [item.id for item in inside.dropped] == ["b"]
    shared = build(
        "breaker", [passage("a", BREAKER), passage("b", BREAKER.split(" A ")[0] + " " + CACHE)]
    )
    assert shared.dropped == []


@pytest.mark.parametrize(("language", "kept"), [("pt", "pt/a"), ("en", "en/a")])
def test_of_a_section_and_its_translation_the_question_s_language_stays(language, kept):
    pair = [
        passage("en/a", "A breaker opens after five failures.", position=2),
        passage("pt/a", "Um disjuntor abre após cinco falhas.", position=2, language="pt"),
    ]
    built = build("breaker disjuntor", pair, language=language)
    assert [source.id for source in built.sources] == [kept]
    assert "another language" in built.dropped[0].reason
    assert len(build("breaker disjuntor", pair, language=language, twins=False).sources) == 2


def test_only_the_same_place_of_the_same_document_is_a_translation():
    pair = [
        passage("en/a", "A breaker opens after five failures.", position=2),
        passage("pt/a", "Outra parte do mesmo texto.", position=3, language="pt"),
        passage("pt/b", "Outro texto, mesmo lugar.", position=2, language="pt"),
        passage("notes", "No language in the id.", position=2, language="pt"),
    ]
    assert build("breaker", pair).dropped == []


def test_the_translation_takes_the_better_place():
    built = build(
        "disjuntor",
        [
            passage("en/a", "A breaker opens after five failures.", position=2),
            passage("pt/b", "Um cache guarda respostas.", language="pt"),
            passage("pt/a", "Um disjuntor abre após cinco falhas.", position=2, language="pt"),
        ],
        language="pt",
    )
    assert [source.id for source in built.sources] == ["pt/a", "pt/b"]


def test_neighbours_become_one_source_in_reading_order():
    parts = [
        passage("a#3", "The third part ends the story.", position=3, title="Story"),
        passage("b", CACHE),
        passage("a#2", "The second part leads to it.", position=2, title="Story"),
        passage("a#1", "The first part opens.", position=1, title="Story"),
    ]
    built = build("story part", parts)
    assert built.sources[0].passages == ["a#1", "a#2", "a#3"]
    assert built.sources[0].id == "a#3"
    assert built.sources[0].text.splitlines() == [
        "The first part opens.",
        "The second part leads to it.",
        "The third part ends the story.",
    ]
    assert len(build("story part", parts, merge=False).sources) == 4


def test_edges_order_puts_the_weakest_in_the_middle():
    many = [passage(str(n), f"Cache number {n} holds entry {n * 7}.") for n in range(1, 6)]
    built = build("cache", many, order="edges")
    assert [source.id for source in built.sources] == ["1", "3", "5", "4", "2"]
    assert [source.number for source in built.sources] == [1, 2, 3, 4, 5]


def test_max_passages_is_kept_and_reported():
    many = [passage(str(n), f"Cache number {n} holds entry {n * 7}.") for n in range(1, 6)]
    built = build("cache", many, max_passages=2)
    assert [source.id for source in built.sources] == ["1", "2"]
    assert {item.reason for item in built.dropped} == {"more passages than max_passages"}


def test_code_and_tables_are_kept_whole_or_dropped_whole():
    text = "Set the threshold.\n\n```python\nbreaker = Breaker(threshold=5)\nbreaker.call()\n```"
    whole = build("breaker threshold", [passage("a", text)], 60)
    assert "```python\nbreaker = Breaker(threshold=5)\nbreaker.call()\n```" in whole.context
    tight = build("breaker threshold", [passage("a", text)], 12)
    assert tight.context == "[1] Set the threshold."


def test_a_pronoun_brings_its_sentence_along():
    text = "The dispatcher holds a lease. It expires after ninety seconds. Cats sleep."
    built = build("when does it expire, in seconds?", [passage("a", text)], 16)
    assert built.context == "[1] The dispatcher holds a lease. It expires after ninety seconds."


def test_numbers_in_brackets_inside_a_passage_are_not_mistaken_for_sources():
    text = "Latency fell by half [12], says the author [3]. `items[0]` stays."
    built = build("latency", [passage("a", text)])
    assert built.context == "[1] Latency fell by half (12), says the author (3). `items[0]` stays."
    assert built.sources[0].text == text


def test_nothing_fits_and_nothing_given():
    nothing = build("breaker", [passage("a", BREAKER)], 3)
    assert (nothing.context, nothing.sources, nothing.tokens) == ("", [], 0)
    assert [item.id for item in nothing.dropped] == ["a"]
    assert build("breaker", []).context == ""
    assert build("breaker", [passage("a", "  ")]).dropped[0].reason == "it has no text"


TABLES = ("| cache |\n|---|\n| warm |", "| cache |\n|---|\n| cold |")


@pytest.mark.parametrize(
    ("texts", "tokens"),
    [((f"{TABLES[0]}\n\nBirds sing.\n\n{TABLES[1]}",), 25), (TABLES, 30)],
    ids=["one-passage", "neighbours"],
)
def test_two_tables_do_not_become_one(texts, tokens):
    passages = [passage(f"d#{n}", text, position=n) for n, text in enumerate(texts)]
    built = build("cache", passages, tokens, headings=False, duplicates=False)
    assert built.context == f"[1] {TABLES[0]}\n\n{TABLES[1]}"


def test_weak_sentences_can_be_left_out_even_when_there_is_room():
    built = build(
        "after how many failures does a circuit breaker open?",
        [passage("a", BREAKER), passage("b", CACHE)],
        least_share=0.9,
    )
    assert built.context == "[1] A circuit breaker opens after five failures in a row."
    assert built.dropped[0].reason == "too weak beside the best passage"


def test_without_extraction_passages_are_cut_at_sentence_ends_in_order():
    built = build("sixty seconds", [passage("a", BREAKER), passage("b", CACHE)], 26, extract=False)
    assert built.context == "[1] " + " ".join(BREAKER.split(". ")[:1]) + ". " + (
        "A circuit breaker opens after five failures in a row."
    )


SENTENCE = st.sampled_from(
    [
        "The cache is warm.",
        "It expires after 60 s.",
        "A breaker opens at five [2].",
        "Queues grow without limit, e.g. when nobody reads.",
        "- an item.",
        "```\ncode here\n```",
        "| a | b |\n|---|---|",
        "Por isso ele falha.",
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(SENTENCE, min_size=1, max_size=8), min_size=1, max_size=5),
    tokens=st.integers(1, 120),
    order=st.sampled_from(["best_first", "edges"]),
    headings=st.booleans(),
)
def test_whatever_goes_in_the_budget_holds_and_nothing_is_cut(texts, tokens, order, headings):
    passages = [
        passage(f"d{n % 2}#{n}", "\n".join(text), position=n, title="T")
        for n, text in enumerate(texts)
    ]
    built = build("when does the cache expire?", passages, tokens, order=order, headings=headings)
    assert built.tokens == Words().count(built.context) <= tokens
    given_units = {unit.text for item in passages for unit in units(item["text"])}
    for source in built.sources:
        assert {unit.text for unit in units(source.text)} <= given_units
    placed = [name for source in built.sources for name in source.passages]
    assert sorted(placed + [item.id for item in built.dropped]) == sorted(
        item["id"] for item in passages
    )


def test_six_passages_take_a_few_milliseconds():
    text = " ".join(
        f"Sentence {n} of this passage speaks of caches and breakers." for n in range(12)
    )
    many = [passage(str(n), text.replace("passage", f"passage {n * 37}")) for n in range(6)]
    times = []
    for _ in range(20):
        started = time.perf_counter()
        build("when does the breaker open?", many, 260, duplicates=False)
        times.append(time.perf_counter() - started)
    assert sorted(times)[10] < 0.005 * 5  # the goal is 5 ms; shared machines get some slack


def test_a_long_chain_of_pronouns_is_cut_off_and_costs_no_time():
    started = time.perf_counter()
    built = build("what is it?", [passage("a", "It is so. " * 3_000)], 260)
    assert time.perf_counter() - started < 2.0
    assert built.tokens <= 260


def test_domain_imports_no_web_framework():
    code = (
        "import sys, services.context_aggregation.domain; "
        "print([m for m in ('fastapi', 'aiohttp', 'uvicorn', 'services.chassis') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_what_stays_is_compared_with_and_duplicates_are_not():
    said = [f"w{n}" for n in range(60)]
    second = [*said[:57], "x", "y", "z"]
    third = [*second[:51], "q", "r", "s", *second[54:]]
    texts = [" ".join(found) for found in (said, second, third)]
    assert find_duplicates(texts, 0.8) == {1: 0}
    assert find_duplicates(texts[1:], 0.8) == {1: 0}


def test_where_costs_are_too_small_the_last_choice_is_taken_back():
    def count(text):
        return len(text.split())

    def write(chosen):
        return " ".join("one two three" for _ in chosen)

    one = Counted("one", count)
    pieces = [Piece(n, 0, {0: one}, Counted("", count)) for n in range(4)]
    assert fit_budget(pieces, 7, write=write, count=count) == pieces[:2]
    assert fit_budget(pieces, 2, write=write, count=count) == []


def test_without_skipping_the_first_that_is_too_long_ends_the_choice():
    def count(text):
        return len(text.split())

    texts = ["one", "one two three", "one"]
    pieces = [Piece(0, n, {n: Counted(t, count)}, Counted("", count)) for n, t in enumerate(texts)]
    assert fit_budget(pieces, 3, write=lambda _: "", count=count) == [pieces[0], pieces[2]]
    assert fit_budget(pieces, 3, write=lambda _: "", count=count, skip=False) == [pieces[0]]
