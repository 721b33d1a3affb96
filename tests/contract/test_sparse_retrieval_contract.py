"""The contract of sparse_retrieval. It brings its own passages and takes them away again."""

import pytest

pytestmark = pytest.mark.system

DOCUMENT = "contract/sparse"
# Words that no real document holds, so that only these passages can match.
TEXTS = {
    f"{DOCUMENT}": ("en", "The zworkle opens after three failures.", ["contract"]),
    f"{DOCUMENT}#b": ("en", "Zworkles and zworkles: a zworkle is everywhere here.", []),
    f"{DOCUMENT}#c": ("pt", "As zerunificações são testadas; o zworkle também.", ["contract"]),
}


def passage(name):
    language, text, tags = TEXTS[name]
    return {
        "id": name,
        "document": DOCUMENT,
        "title": "Contract",
        "heading": "",
        "position": list(TEXTS).index(name),
        "language": language,
        "tags": tags,
        "text": text,
    }


@pytest.fixture(autouse=True)
def passages(http):
    response = http.put("/v1/passages", json={"passages": [passage(name) for name in TEXTS]})
    assert response.status_code == 200, response.text
    assert response.json() == {"stored": 3}
    yield
    assert http.delete("/v1/passages", params={"document": DOCUMENT}).status_code == 200


def search(http, **body):
    response = http.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return response.json()["hits"]


def test_hits_are_whole_passages_best_first(http):
    hits = search(http, query="zworkle", language="en", top_k=10)
    assert {hit["id"] for hit in hits} == set(TEXTS)
    assert hits[0]["id"] == f"{DOCUMENT}#b"  # the most occurrences
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(hit["passage"] == passage(hit["id"]) for hit in hits)


def test_words_are_stemmed_in_the_language_of_the_query(http):
    found = {hit["id"] for hit in search(http, query="zworkles", language="en")}
    assert DOCUMENT in found
    found = [hit["id"] for hit in search(http, query="zerunificação", language="pt")]
    assert found == [f"{DOCUMENT}#c"]


@pytest.mark.parametrize("language", ["en", "pt", None])
def test_a_term_is_found_in_passages_of_the_other_language(http, language):
    found = {hit["id"] for hit in search(http, query="zworkle", language=language)}
    assert found == set(TEXTS)


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({"language": ["pt"]}, 1),
        ({"tag": ["contract"]}, 2),
        ({"tag": ["contract"], "language": ["en"]}, 1),
        ({"document": [DOCUMENT]}, 3),
        ({"document": ["contract/none"]}, 0),
    ],
    ids=["language", "tag", "both", "document", "nothing"],
)
def test_filters(http, chosen, count):
    assert len(search(http, query="zworkle", filter=chosen)) == count


@pytest.mark.parametrize(
    "query", ['"zworkle', "zworkle AND (", "-zworkle", "NOT zworkle^0", "[zworkle TO *]"]
)
def test_a_query_is_plain_words(http, query):
    found = {hit["id"] for hit in search(http, query=query, filter={"document": [DOCUMENT]})}
    assert found == set(TEXTS)


def test_top_k_and_repetition(http):
    first = search(http, query="zworkle", top_k=2)
    assert len(first) == 2
    assert first == search(http, query="zworkle", top_k=2)


def test_storing_again_replaces_and_deleting_tells_how_many(http):
    changed = passage(DOCUMENT) | {"text": "Now about a grumblefrotz."}
    assert http.put("/v1/passages", json={"passages": [changed]}).json() == {"stored": 1}
    assert [hit["id"] for hit in search(http, query="grumblefrotz")] == [DOCUMENT]
    assert DOCUMENT not in {hit["id"] for hit in search(http, query="zworkle")}
    assert http.delete("/v1/passages", params={"id": DOCUMENT}).json() == {"deleted": 1}
    assert http.delete("/v1/passages", params={"document": DOCUMENT}).json() == {"deleted": 2}
    assert http.delete("/v1/passages", params={"document": DOCUMENT}).json() == {"deleted": 0}


def test_the_vocabulary_follows_the_passages(http):
    response = http.get("/v1/vocabulary")
    answer = response.json()
    assert answer["terms"]["zworkle"] == 3
    assert answer["terms"]["zerunificações"] == 1
    etag = response.headers["etag"]
    assert http.get("/v1/vocabulary", headers={"if-none-match": etag}).status_code == 304
    http.delete("/v1/passages", params={"id": DOCUMENT})
    changed = http.get("/v1/vocabulary", headers={"if-none-match": etag})
    assert changed.status_code == 200
    assert changed.json()["version"] != answer["version"]
    assert changed.json()["terms"]["zworkle"] == 2


def test_stats_count(http):
    before = http.get("/v1/stats").json()
    http.delete("/v1/passages", params={"document": DOCUMENT})
    after = http.get("/v1/stats").json()
    assert before["passages"] - after["passages"] == 3
    assert before["documents"] - after["documents"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": ["a"]}, "query"),
        ({"query": "q", "top_k": 0}, "top_k"),
        ({"query": "q", "filter": {"colour": ["red"]}}, "filter.colour"),
        ({"query": "q", "typo": 1}, "typo"),
    ],
)
def test_bad_input_names_the_field(http, body, field):
    response = http.post("/v1/search", json=body)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]


def test_a_bad_passage_is_named_and_nothing_of_its_request_is_stored(http):
    good = passage(DOCUMENT) | {"id": f"{DOCUMENT}#new"}
    body = {"passages": [good, good | {"text": 3}]}
    response = http.put("/v1/passages", json=body)
    assert response.status_code == 422
    assert "passages.1.text" in [error["field"] for error in response.json()["errors"]]
    assert http.delete("/v1/passages", params={"id": good["id"]}).json() == {"deleted": 0}
