"""The contract of reranking. It brings its own documents; what it encodes is kept by hash only."""

import pytest

pytestmark = pytest.mark.system

QUERY = "When does a circuit breaker open?"
ANSWER = "A circuit breaker opens after five failures in a row."
DOCUMENTS = [
    "A container shares the kernel of the machine that it runs on.",
    "BM25 weighs a term by how rare it is in the collection.",
    ANSWER,
    "Rate limits are counted for each key.",
]


def rerank(http, **body):
    response = http.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS} | body)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_answer_comes_first_and_every_document_once(http):
    answer = rerank(http)
    results = answer["results"]
    assert results[0]["index"] == DOCUMENTS.index(ANSWER)
    assert sorted(result["index"] for result in results) == list(range(len(DOCUMENTS)))
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert answer["meta"]["ranked"] == len(DOCUMENTS)
    assert answer["meta"]["complete"] is True


def test_the_answer_is_found_across_languages(http):
    portuguese = "Um disjuntor abre depois de cinco falhas seguidas."
    documents = ["O container compartilha o kernel.", portuguese, "Os limites são por chave."]
    assert rerank(http, documents=documents)["results"][0]["index"] == 1


def test_equal_documents_score_alike_and_keep_their_order(http):
    answer = rerank(http, documents=[DOCUMENTS[1], ANSWER, DOCUMENTS[1], ANSWER])
    assert [result["index"] for result in answer["results"]] == [1, 3, 0, 2]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores[0] == scores[1] > scores[2] == scores[3]


def test_a_score_does_not_depend_on_the_documents_beside_it(http):
    together = {r["index"]: r["relevance_score"] for r in rerank(http)["results"]}
    for index, text in enumerate(DOCUMENTS):
        alone = rerank(http, documents=[text])["results"][0]["relevance_score"]
        assert alone == pytest.approx(together[index], abs=1e-4)


def test_top_n_cuts_and_documents_come_back_when_wanted(http):
    objects = [{"text": text, "id": f"p{n}"} for n, text in enumerate(DOCUMENTS)]
    results = rerank(http, documents=objects, top_n=2, return_documents=True)["results"]
    assert len(results) == 2
    assert results[0]["document"] == {"text": ANSWER, "id": "p2"}
    assert all("document" not in result for result in rerank(http, top_n=2)["results"])


def test_the_same_request_has_the_same_answer(http):
    assert rerank(http)["results"] == rerank(http)["results"]


def test_the_model_is_named_and_no_other_is_taken(http):
    (model,) = http.get("/v1/models").json()["data"]
    answer = rerank(http, model=model["id"])
    assert (answer["model"], answer["meta"]["engine"]) == (model["id"], model["engine"])
    response = http.post(
        "/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "model": "another"}
    )
    assert response.status_code == 404
    assert model["id"] in response.json()["detail"]


def test_passages_are_encoded_ahead_once(http):
    texts = ["The contract of reranking brings this text.", ANSWER]
    assert http.put("/v1/passages", json={"texts": texts}).status_code == 200
    assert http.put("/v1/passages", json={"texts": texts}).json()["encoded"] == 0


def test_a_query_without_words_is_ranked_all_the_same(http):
    results = rerank(http, query="?!")["results"]
    assert sorted(result["index"] for result in results) == list(range(len(DOCUMENTS)))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": 5}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"limit": 3}, "limit"),
    ],
)
def test_bad_input_names_the_field(http, body, field):
    response = http.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS} | body)
    assert response.status_code == 422
    assert any(error["field"].startswith(field) for error in response.json()["errors"])
