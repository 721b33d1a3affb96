"""The formula, and an index that is scored by functions of one's own."""

import math

import pytest

from services.sparse_retrieval.api import create_app
from services.sparse_retrieval.bm25 import (
    Scorer,
    inverse_document_frequency,
    stored_length,
    term_frequency,
)
from services.sparse_retrieval.domain import Filter, KeywordIndex
from services.sparse_retrieval.settings import Settings

WORDS = ["circuit", "breaker", "falhas", "organização", "organizacoes", "opened", "pod"]


def passage(number):
    """Of many lengths, with words that repeat, half of them Portuguese."""
    words = [WORDS[(number * k + k * k) % len(WORDS)] for k in range(1, 3 + number * 7 % 90)]
    return {
        "id": f"p{number:02}",
        "document": f"d{number % 5}",
        "title": "",
        "heading": "",
        "position": number,
        "language": "pt" if number % 2 else "en",
        "tags": [],
        "text": " ".join(words),
    }


PASSAGES = [passage(number) for number in range(60)]


@pytest.fixture(scope="module")
def engine():
    with KeywordIndex() as index:
        index.put(PASSAGES)
        yield index


@pytest.fixture(scope="module")
def formula():
    with KeywordIndex(scorer=Scorer()) as index:
        index.put(PASSAGES)
        yield index


@pytest.mark.parametrize("language", ["en", "pt", None])
@pytest.mark.parametrize(
    "query", ["breaker", "opening breakers breaker", "organizacao das falhas", "nothing", "?!"]
)
@pytest.mark.parametrize("where", [None, Filter(document=["d1", "d3"])])
def test_the_formula_scores_as_the_engine_does(engine, formula, query, language, where):
    expected = engine.search(query, language=language, top_k=40, where=where)
    found = formula.search(query, language=language, top_k=40, where=where)
    assert [hit.raw for hit in found] == [hit.raw for hit in expected]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], rel=1e-5)


def test_the_statistics_are_the_engine_s_after_a_change(engine, formula):
    changed = PASSAGES[0] | {"id": "new", "text": "breaker " * 300}
    for index in (engine, formula):
        index.put([changed])
    try:
        pairs = [index.search("breaker pod", language="en", top_k=5) for index in (engine, formula)]
        expected, found = ([(hit.id, hit.score) for hit in hits] for hits in pairs)
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert [score for _, score in found] == pytest.approx([s for _, s in expected], rel=1e-5)
    finally:
        for index in (engine, formula):
            index.delete(ids=["new"])


def test_functions_of_one_s_own_decide_the_score():
    with KeywordIndex(scorer=Scorer(lambda *_: 2.0, lambda count, *_: count)) as index:
        index.put([*PASSAGES[:3], PASSAGES[3] | {"id": "most", "text": "pod " * 9}])
        first = index.search("pod", language="en")[0]
    assert (first.id, first.score) == ("most", 18.0)


def test_idf_by_hand():
    assert inverse_document_frequency(5, 2) == pytest.approx(math.log(2.4))
    assert inverse_document_frequency(5, 5) > 0


def test_term_frequency_by_hand():
    assert term_frequency(1, 10, 10.0) == pytest.approx(1.0)
    assert term_frequency(3, 20, 10.0) == pytest.approx(3 * 2.2 / (3 + 1.2 * 1.75))
    assert term_frequency(3, 20, 10.0, k1=2.0, b=0.0) == pytest.approx(3 * 3 / 5)


@pytest.mark.parametrize(
    ("length", "stored"),
    [(0, 0), (24, 24), (39, 39), (40, 40), (41, 40), (79, 76), (100, 96), (1000, 984)],
)
def test_a_length_is_kept_in_one_byte(length, stored):
    assert stored_length(length) == stored


def test_no_length_loses_more_than_an_eighth():
    kept = {stored_length(length) for length in range(50_000)}
    assert len(kept) <= 256
    assert all(7 / 8 * length < stored_length(length) <= length for length in range(1, 50_000, 7))


@pytest.mark.parametrize("given", ["idf", "frequency"])
async def test_the_service_takes_either_function(given):
    from services.chassis.testing import running

    own = {"idf": lambda passages, holding: 7.0, "frequency": lambda count, *_: count * 7.0}
    app = create_app(Settings(in_memory=True), **{given: own[given]})
    async with running(app) as client:
        body = {"passages": [PASSAGES[0] | {"text": "pod"}]}
        assert (await client.put("/v1/passages", json=body)).status_code == 200
        found = (await client.post("/v1/search", json={"query": "pod"})).json()["hits"]
    other = {"idf": 1.0, "frequency": math.log(4 / 3)}[given]
    assert found[0]["score"] == pytest.approx(7 * other)
