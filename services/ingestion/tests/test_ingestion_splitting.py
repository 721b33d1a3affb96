import itertools
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingestion.domain import Passage, index_text, slug
from services.ingestion.splitting import BadDocument, sentences, split_document, words

HANDBOOK = Path(__file__).parents[3] / "handbook"


def prose(count, start=0):
    """`count` different short sentences."""
    return " ".join(f"This is sentence number {n} of it." for n in range(start, start + count))


def test_one_passage_a_section_and_one_for_the_opening():
    page = "---\ntitle: Breakers\nlanguage: en\ntags: [a, b]\n---\n# Heading\n\nIntro.\n\n"
    page += "## When it opens\n\nFirst.\n\n### Detail\n\nSecond.\n\n## Fim: até já\n\nThird.\n"
    passages = split_document(page, "en/breaker")
    assert [(p.id, p.heading, p.text) for p in passages] == [
        ("en/breaker", "", "Intro."),
        ("en/breaker#when-it-opens", "When it opens", "First.\n\n### Detail\n\nSecond."),
        ("en/breaker#fim-ate-ja", "Fim: até já", "Third."),
    ]
    assert [p.position for p in passages] == [0, 1, 2]
    assert {(p.title, p.language, tuple(p.tags)) for p in passages} == {
        ("Breakers", "en", ("a", "b"))
    }


def test_index_text_is_title_heading_and_text():
    def passage(title, heading):
        return Passage("d", "d", title, heading, 0, "en", [], "Text.")

    assert index_text(passage("Title", "Head")) == "Title — Head\nText."
    assert index_text(passage("Title", "")) == "Title\nText."
    assert index_text(passage("", "Head")) == "Text."


def test_what_is_given_wins_over_the_front_matter():
    page = "---\ntitle: Own\nlanguage: pt\ntags: own\n---\nText here.\n"
    (passage,) = split_document(page, "d", title="Given", language="en", tags=["given"])
    assert (passage.title, passage.language, passage.tags) == ("Given", "en", ["given"])
    (passage,) = split_document(page, "d")
    assert (passage.title, passage.language, passage.tags) == ("Own", "pt", ["own"])


def test_a_title_with_a_colon_is_read_although_it_is_no_yaml():
    page = "---\ntitle: HNSW: o que é?\nlanguage: pt\n---\nTexto.\n"
    assert split_document(page, "d")[0].title == "HNSW: o que é?"


def test_front_matter_that_makes_no_sense_is_refused():
    with pytest.raises(BadDocument, match="front matter"):
        split_document("---\ntags: [a, b\n---\nText.\n", "d")


def test_equal_headings_get_different_ids():
    page = "## Notes\n\nA.\n\n## Notes\n\nB.\n\n## ???\n\nC.\n"
    assert [p.id for p in split_document(page, "d")] == ["d#notes", "d#notes-2", "d#section"]


def test_a_long_section_is_split_between_paragraphs_and_keeps_its_words():
    paragraphs = [prose(10, 10 * n) for n in range(12)]
    passages = split_document("## Long\n\n" + "\n\n".join(paragraphs), "d")
    assert [p.id for p in passages] == ["d#long", "d#long-2", "d#long-3", "d#long-4"]
    assert {p.heading for p in passages} == {"Long"}
    assert all(words(p.text) <= 220 for p in passages)
    assert "\n\n".join(p.text for p in passages) == "\n\n".join(paragraphs)


def test_one_endless_paragraph_is_split_between_sentences():
    passages = split_document("## Long\n\n" + prose(100), "d")
    assert len(passages) > 2
    assert all(words(p.text) <= 220 and p.text.endswith(".") for p in passages)
    assert " ".join(p.text for p in passages) == prose(100)


def test_the_opening_s_further_parts_cannot_be_another_document_s_opening():
    assert [p.id for p in split_document(prose(80), "d")] == ["d", "d#-2", "d#-3"]


def test_code_and_tables_are_never_cut():
    code = "```python\n" + "\n".join(f"line_{n} = {n}  # a comment" for n in range(150)) + "\n```"
    table = "| a | b |\n|---|---|\n" + "\n".join(f"| row {n} | {n} |" for n in range(120))
    passages = split_document(f"## S\n\n{prose(20)}\n\n{code}\n\n{prose(20)}\n\n{table}\n", "d")
    texts = [p.text for p in passages]
    assert sum(code in text for text in texts) == 1
    assert sum(table in text for text in texts) == 1


def test_a_hash_in_a_code_block_is_no_heading():
    page = "## Shell\n\n```\n# not a heading\n## nor this\n```\n"
    assert [p.heading for p in split_document(page, "d")] == ["Shell"]


def test_long_lists_are_cut_between_items():
    items = [f"- Item {n} says a few words about itself." for n in range(60)]
    passages = split_document("## L\n\n" + "\n".join(items), "d")
    assert len(passages) > 1
    assert [line for p in passages for line in p.text.split("\n")] == items


def test_a_long_section_is_cut_at_its_subheadings():
    page = "## S\n\n" + "\n\n".join(f"### Sub {n}\n\n{prose(20, 20 * n)}" for n in range(4))
    passages = split_document(page, "d")
    assert [p.text.split("\n")[0] for p in passages] == [f"### Sub {n}" for n in range(4)]


def test_overlap_repeats_whole_sentences_when_asked_for():
    passages = split_document("## L\n\n" + prose(100), "d", overlap_words=20)
    for before, after in itertools.pairwise(passages):
        repeated = sentences(after.text)[:2]
        assert before.text.endswith(" ".join(repeated))


@given(st.lists(st.sampled_from(["word", "two words.", "# H", "## S", "- i", "\n", "```", "|a|"])))
@settings(max_examples=200, deadline=None)
def test_any_markdown_gives_distinct_ids_or_a_reason(parts):
    try:
        passages = split_document("\n".join(parts), "d", language="en", max_words=20)
    except BadDocument:
        return
    assert len({p.id for p in passages}) == len(passages)
    assert all(p.text.strip() and p.id.startswith("d") for p in passages)


def test_sentences_do_not_end_at_abbreviations():
    text = 'See e.g. Fig. 3 by Dr. Silva. It works. "Really?" Sim, p. ex. Aqui. Fim'
    assert sentences(text) == [
        "See e.g. Fig. 3 by Dr. Silva.",
        "It works.",
        '"Really?"',
        "Sim, p. ex. Aqui.",
        "Fim",
    ]


def test_slugs_are_ascii():
    assert slug("Índice — Coração & Ação!") == "indice-coracao-acao"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The breaker opens after five failures and stays open for a while.", "en"),
        ("O disjuntor abre depois de cinco falhas e fica aberto por um tempo.", "pt"),
        ("Der Schutzschalter öffnet nach fünf Fehlern und bleibt eine Weile offen.", "de"),
        ("Ok.", "en"),
    ],
)
def test_language_is_detected(text, language):
    assert split_document(text, "d", "text/plain")[0].language == language


# -- the handbook -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def handbook():
    return {
        passage.id: passage
        for path in sorted(HANDBOOK.glob("??/*.md"))
        for passage in split_document(
            path.read_bytes(), path.relative_to(HANDBOOK).with_suffix("").as_posix()
        )
    }


def test_every_gold_passage_of_the_questions_exists(handbook):
    files = [HANDBOOK / "questions.jsonl"]
    gold = {
        (path.name, question["id"], id)
        for path in files
        for question in map(orjson.loads, path.read_bytes().splitlines())
        for id in question["relevant"]
    }
    assert len(gold) > 100
    assert {entry for entry in gold if entry[2] not in handbook} == set()


def test_a_handbook_section_is_one_passage(handbook):
    assert len(handbook) > 500
    sections = sum(
        1 + sum(line.startswith("## ") for line in path.read_text("utf-8").split("\n"))
        for path in HANDBOOK.glob("??/*.md")
    )
    assert len(handbook) == sections
    for id, passage in handbook.items():
        assert passage.language == id.split("/")[0]
        assert passage.title
        assert passage.tags


def test_the_domain_needs_no_web_framework():
    import subprocess
    import sys

    code = (
        "import sys, services.ingestion.splitting as s; s.split_document('# T\\n\\nx', 'd', "
        "language='en'); print([m for m in ('fastapi', 'aiohttp', 'sqlalchemy') "
        "if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment
    )
    assert done.stdout.strip() == "[]", done.stderr
