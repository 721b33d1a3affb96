"""The handbook keeps its promises: paired pages, sections that stand alone, gold that resolves."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

HANDBOOK = Path(__file__).parents[2] / "handbook"
SLUGS = sorted(path.stem for path in (HANDBOOK / "en").glob("*.md"))
QUESTIONS = [json.loads(line) for line in (HANDBOOK / "questions.jsonl").open(encoding="utf-8")]
KINDS = {
    "plain",
    "misspelled",
    "paraphrase",
    "two_passages",
    "follow_up",
    "cross_language",
    "unanswerable",
    "off_topic",
    "injection",
    "personal_data",
    "small_talk",
}
WITHOUT_ANSWER = {"unanswerable", "off_topic", "injection", "small_talk"}


def slug(text):
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def body(language, name):
    text = (HANDBOOK / language / f"{name}.md").read_text(encoding="utf-8")
    _, front, rest = text.split("---\n", 2)
    return front, rest


def sections(language, name):
    """Passage ids of a page, in order, with their texts."""
    _, text = body(language, name)
    parts, fenced = [(f"{language}/{name}", [])], False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("## ") and not fenced:
            parts.append((f"{language}/{name}#{slug(line[3:])}", []))
        elif not line.startswith("# ") or fenced:
            parts[-1][1].append(line)
    return {name: "\n".join(lines) for name, lines in parts}


PASSAGES = {
    passage: text
    for language in ("en", "pt")
    for name in SLUGS
    for passage, text in sections(language, name).items()
}


def fold(text):
    plain = unicodedata.normalize("NFKD", text)
    return "".join(char for char in plain if not unicodedata.combining(char)).casefold()


def test_there_are_at_least_sixty_pages_in_both_languages():
    assert len(SLUGS) >= 60
    assert sorted(path.stem for path in (HANDBOOK / "pt").glob("*.md")) == SLUGS


@pytest.mark.parametrize("name", SLUGS)
def test_a_page_has_its_length_and_its_twin(name):
    english, portuguese = sections("en", name), sections("pt", name)
    assert len(english) == len(portuguese), "sections are paired by position"
    assert 4 <= len(english) <= 6
    tags = []
    for language in ("en", "pt"):
        front, text = body(language, name)
        assert f"language: {language}\n" in front
        tags.append(re.search(r"^tags: (.+)$", front, re.M)[1])
        assert 300 <= len(text.split()) <= 700, language
        headings = re.findall(r"^## (.+)$", text, re.M)
        assert len({slug(heading) for heading in headings}) == len(headings)
    assert tags[0] == tags[1]


def test_there_are_enough_questions_of_every_kind_in_both_languages():
    assert len(QUESTIONS) >= 300
    assert {question["kind"] for question in QUESTIONS} == KINDS
    for language in ("en", "pt"):
        kinds = Counter(q["kind"] for q in QUESTIONS if q["language"] == language)
        assert set(kinds) == KINDS
    assert len({question["id"] for question in QUESTIONS}) == len(QUESTIONS)
    assert len({question["question"] for question in QUESTIONS}) == len(QUESTIONS)


def test_gold_passages_exist_and_hold_the_keywords():
    wrong = []
    for question in QUESTIONS:
        missing = [passage for passage in question["relevant"] if passage not in PASSAGES]
        text = fold(" ".join(PASSAGES.get(passage, "") for passage in question["relevant"]))
        for keyword in question["keywords"]:
            if not any(fold(option) in text for option in keyword.split("|")):
                missing.append(keyword)
        if missing:
            wrong.append((question["id"], missing))
    assert wrong == []


def test_a_question_without_an_answer_has_no_gold_and_any_other_has():
    for question in QUESTIONS:
        if question["kind"] in WITHOUT_ANSWER:
            assert question["relevant"] == [], question["id"]
        elif question["kind"] != "personal_data":
            assert question["relevant"], question["id"]
        assert (question["kind"] == "follow_up") == ("history" in question), question["id"]


def test_splits_do_not_share_pages():
    split_of = {}
    for question in QUESTIONS:
        for passage in question["relevant"]:
            page = passage.split("#")[0].split("/")[1]
            assert split_of.setdefault(page, question["split"]) == question["split"], page
    assert set(split_of.values()) == {"train", "validation", "test"}


def test_twenty_fixed_questions_half_in_each_language():
    fixed = Counter(q["language"] for q in QUESTIONS if q.get("fixed"))
    assert fixed == {"en": 10, "pt": 10}


def test_the_gold_of_a_cross_language_question_is_in_the_other_language():
    for question in QUESTIONS:
        languages = {passage[:2] for passage in question["relevant"]}
        if question["kind"] == "cross_language":
            assert languages == {"pt" if question["language"] == "en" else "en"}, question["id"]
        elif languages:
            assert languages == {question["language"]}, question["id"]
