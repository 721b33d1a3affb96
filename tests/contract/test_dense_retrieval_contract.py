"""The contract of dense_retrieval. It brings its own passages and takes them away again."""

import base64
import struct

import pytest

pytestmark = pytest.mark.system

DOCUMENT = "contract/dense"
OTHER = "contract/dense-other"
ONLY_OURS = {"document": [DOCUMENT, OTHER]}


@pytest.fixture(scope="module")
def space(http):
    """Model and length of the bilingual vectors; of an empty service, our own choice."""
    models = http.get("/v1/stats").json()["models"]
    return models.get("bilingual") or {"model": "contract-model", "dimensions": 8}


@pytest.fixture
def axis(space):
    """`axis(i)`: the unit vector along dimension i; two of them have a cosine of zero."""

    def make(number, other=None):
        vector = [0.0] * space["dimensions"]
        vector[number] = 1.0
        if other is not None:
            vector[other] = 1.0
        return vector

    return make


def passage(name, document=DOCUMENT, **changes):
    whole = {
        "id": name,
        "document": document,
        "title": "Contract",
        "heading": "",
        "position": 0,
        "language": "en",
        "tags": ["contract"],
        "text": f"The text of {name}.",
    }
    return whole | changes


A, B = passage(DOCUMENT), passage(f"{DOCUMENT}#b", language="pt")
C = passage(OTHER, OTHER, tags=[])


def packed(vector):
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def put(http, space, *pairs):
    passages = [item | {"vectors": {"bilingual": vector}} for item, vector in pairs]
    body = {"models": {"bilingual": space["model"]}, "passages": passages}
    return http.put("/v1/passages", json=body)


@pytest.fixture(autouse=True)
def passages(http, space, axis):
    response = put(http, space, (A, axis(0)), (B, packed(axis(0, 1))), (C, axis(2)))
    assert response.status_code == 200, response.text
    assert response.json() == {"stored": 3}
    yield
    params = {"document": [DOCUMENT, OTHER]}
    assert http.delete("/v1/passages", params=params).status_code == 200


def search(http, **body):
    response = http.post("/v1/search", json={"filter": ONLY_OURS} | body)
    assert response.status_code == 200, response.text
    return response.json()


def test_hits_are_whole_passages_in_order_of_their_cosine(http, space, axis):
    for vector in (axis(0), packed(axis(0))):
        answer = search(http, vector=vector)
        assert (answer["model"], answer["using"]) == (space["model"], "bilingual")
        assert [hit["passage"] for hit in answer["hits"]] == [A, B, C]
        scores = [hit["score"] for hit in answer["hits"]]
        assert scores == pytest.approx([1, 0.5**0.5, 0], abs=1e-5)


def test_ties_are_in_order_of_id(http, space, axis):
    names = [f"{DOCUMENT}#{letter}" for letter in "zyx"]
    put(http, space, *((passage(name), axis(3)) for name in names))
    hits = search(http, vector=axis(3), top_k=2)["hits"]
    assert [hit["id"] for hit in hits] == sorted(names)[:2]


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({"language": ["pt"]}, {B["id"]}),
        ({"tag": ["contract"]}, {A["id"], B["id"]}),
        ({"document": [OTHER]}, {C["id"]}),
        ({"language": ["xx"]}, set()),
    ],
    ids=["language", "tag", "document", "nothing"],
)
def test_filters(http, axis, chosen, ids):
    hits = search(http, vector=axis(0), filter=ONLY_OURS | chosen)["hits"]
    assert {hit["id"] for hit in hits} == ids


def test_storing_again_replaces_and_deleting_tells_how_many(http, space, axis):
    changed = A | {"text": "Changed."}
    assert put(http, space, (changed, axis(2))).json() == {"stored": 1}
    hits = {hit["id"]: hit for hit in search(http, vector=axis(2))["hits"]}
    assert hits[A["id"]]["passage"] == changed
    assert hits[A["id"]]["score"] == pytest.approx(1, abs=1e-5)
    assert http.delete("/v1/passages", params={"id": B["id"]}).json() == {"deleted": 1}
    assert http.delete("/v1/passages", params={"document": DOCUMENT}).json() == {"deleted": 1}
    assert http.delete("/v1/passages", params={"document": DOCUMENT}).json() == {"deleted": 0}


def test_stats_count_and_name_the_models(http, space):
    before = http.get("/v1/stats").json()
    assert before["models"]["bilingual"] == space
    http.delete("/v1/passages", params={"document": OTHER})
    after = http.get("/v1/stats").json()
    assert before["passages"] - after["passages"] == 1
    assert before["documents"] - after["documents"] == 1


def test_another_model_is_a_conflict_that_tells_what_to_do(http, space, axis):
    for response in (
        put(http, space | {"model": "some-other-model"}, (A, axis(0))),
        http.post("/v1/search", json={"vector": axis(0), "model": "some-other-model"}),
    ):
        assert response.status_code == 409
        assert response.json()["type"].endswith(":model-mismatch")
        assert space["model"] in response.json()["detail"]
        assert "ingest" in response.json()["detail"]


def test_a_query_is_embedded_or_the_gone_embedding_is_named(http):
    response = http.post("/v1/search", json={"query": "When does a breaker open?", "top_k": 3})
    if response.status_code == 200:
        assert response.json()["hits"]
    else:
        kind = response.json()["type"].rpartition(":")[2]
        # 409 where the embedding service does not have our made-up model
        assert (response.status_code, kind) in [
            (503, "embedding-unavailable"),
            (409, "model-mismatch"),
        ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": ""}, "query"),
        ({"vector": []}, "vector"),
        ({"vector": [0.0, 0.0]}, "vector"),
        ({"vector": [1.0]}, "vector"),
        ({"vector": "not base64!"}, "vector"),
        ({"vector": ["a"]}, "vector"),
        ({"query": "q", "using": "french"}, "using"),
        ({"query": "q", "top_k": 0}, "top_k"),
        ({"query": "q", "filter": {"colour": ["red"]}}, "filter.colour"),
        ({"query": "q", "typo": 1}, "typo"),
    ],
)
def test_bad_input_names_the_field(http, body, field):
    response = http.post("/v1/search", json=body)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]


def test_a_vector_of_another_length_is_named_and_nothing_is_stored(http, space, axis):
    new = passage(f"{DOCUMENT}#new")
    response = put(http, space, (new, axis(0)), (A, [1.0]))
    assert response.status_code == 422
    fields = [error["field"] for error in response.json()["errors"]]
    assert "passages.1.vectors.bilingual" in fields
    assert http.delete("/v1/passages", params={"id": new["id"]}).json() == {"deleted": 0}
