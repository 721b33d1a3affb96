"""The contract of hybrid_search, on the handbook that the system indexed."""

import pytest

pytestmark = pytest.mark.system


def search(http, **body):
    response = http.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("query", "language"),
    [
        ("When does a circuit breaker open?", "en"),
        ("Quando o disjuntor abre?", "pt"),
    ],
)
def test_hits_are_ranked_whole_passages_with_their_provenance(http, query, language):
    hits = search(http, query=query, language=language, top_k=5)["hits"]
    assert len(hits) == 5
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    for hit in hits:
        assert hit["id"] == hit["passage"]["id"]
        assert hit["passage"]["text"]
        assert hit["provenance"]
        assert all(place["rank"] >= 1 for place in hit["provenance"].values())


def test_both_kinds_of_lists_contribute(http):
    answer = search(http, query="reciprocal rank fusion constant", language="en", top_k=20)
    names = {name for hit in answer["hits"] for name in hit["provenance"]}
    assert {"dense", "sparse"} <= names
    assert answer["degraded"] == []


def test_the_filter_holds(http):
    hits = search(http, query="gateway", top_k=10, filter={"language": ["pt"]})["hits"]
    assert hits
    assert {hit["passage"]["language"] for hit in hits} == {"pt"}


def test_one_list_alone_keeps_its_own_order(http):
    body = {"query": "token bucket", "lists": ["sparse"], "top_k": 10}
    hits = search(http, **body)["hits"]
    assert [hit["provenance"]["sparse"]["rank"] for hit in hits] == list(range(1, len(hits) + 1))


def test_the_same_question_gives_the_same_answer(http):
    body = {"query": "What is backpressure?", "language": "en", "top_k": 10}
    first, second = search(http, **body), search(http, **body)
    assert [hit["id"] for hit in first["hits"]] == [hit["id"] for hit in second["hits"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "q", "top_k": 0}, "top_k"),
        ({"query": "q", "top_k": "many"}, "top_k"),
        ({"query": "q", "filter": {"colour": ["red"]}}, "filter.colour"),
        ({"query": "q", "lists": ["telepathy"]}, "lists.0"),
    ],
)
def test_bad_input_names_the_field(http, body, field):
    response = http.post("/v1/search", json=body)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]
