"""The contract of embedding.

Vectors are cached by text. A text with a space behind it gives the same tokens and is another key,
so it shows what the model gives a second time.
"""

import base64
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytestmark = pytest.mark.system

# Of 4 to about 40 tokens, so that texts of several lengths meet in one batch.
TEXTS = [
    "Sagas.",
    "What is a circuit breaker?",
    "Quando um circuit breaker abre?",
    "A queue between two services takes what the second one cannot do yet.",
    "Um índice invertido guarda, para cada termo, a lista das passagens que o contêm.",
    "Retries without a budget turn a short failure into a long one, because every caller asks "
    "again while the service has least to give.",
    "Caches.",
    "How long may a token be valid?",
]


def embed(http, texts, **more):
    response = http.post("/v1/embeddings", json={"input": texts, **more})
    assert response.status_code == 200, response.text
    return response.json()


def vectors(http, texts, **more):
    data = embed(http, texts, **more)["data"]
    return np.array([item["embedding"] for item in data], np.float64)


def distance(left, right):
    return float(np.abs(left - right).max())


@pytest.mark.parametrize("input_type", ["query", "passage"])
def test_every_vector_has_length_one(http, input_type):
    lengths = np.linalg.norm(vectors(http, TEXTS, input_type=input_type), axis=1)
    assert np.abs(lengths - 1).max() < 1e-4, f"the lengths are {lengths.round(3).tolist()}"


def test_a_vector_does_not_depend_on_the_texts_beside_it(http):
    together = vectors(http, [text + " " for text in TEXTS])
    for text, vector in zip(TEXTS, together, strict=True):
        found = distance(vectors(http, text + "  ")[0], vector)
        assert found < 1e-4, f"{text!r} alone is another vector than in a list: is padding counted?"


def test_a_long_list_comes_back_in_its_order(http):
    texts = [f"{text} {number}" for number in range(4) for text in TEXTS]
    answer = embed(http, texts)
    assert [item["index"] for item in answer["data"]] == list(range(len(texts)))
    found = np.array([item["embedding"] for item in answer["data"]])
    again = vectors(http, [text + " " for text in reversed(texts)])
    assert distance(found, again[::-1]) < 1e-4, "the same texts in reverse are other vectors"


def test_many_callers_get_their_own(http):
    callers = [[f"{text} {number}" for text in TEXTS[number % 5 :][:3]] for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda texts: vectors(http, texts), callers))
    for texts, own in zip(callers, found, strict=True):
        assert distance(own, vectors(http, [text + " " for text in texts])) < 1e-4


def test_a_repeated_text_has_the_same_vector(http):
    first, other, again = vectors(http, [TEXTS[0], TEXTS[1], TEXTS[0]])
    assert distance(first, again) == 0
    assert distance(first, other) > 0.01


def test_a_question_is_nearest_to_its_answer_and_to_its_translation(http):
    question, translated = vectors(http, [TEXTS[1], "O que é um circuit breaker?"])
    passages = vectors(
        http,
        [
            "BM25 weighs a term by how rare it is in the collection.",
            "A circuit breaker counts failed calls and opens after several in a row.",
            "A container shares the kernel of its host.",
        ],
        input_type="passage",
    )
    assert int((passages @ question).argmax()) == 1
    assert int((passages @ translated).argmax()) == 1
    assert question @ translated > max(question @ vectors(http, TEXTS[5])[0], 0.8)


def test_queries_and_passages_have_their_own_prefix(http):
    query, passage = (vectors(http, TEXTS[1], input_type=kind) for kind in ("query", "passage"))
    assert distance(query, passage) > 0.001
    assert distance(query, vectors(http, TEXTS[1])) == 0


def test_base64_holds_the_same_numbers(http):
    plain = vectors(http, TEXTS[:2])
    packed = embed(http, TEXTS[:2], encoding_format="base64")["data"]
    raw = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in packed]
    assert distance(np.array(raw), plain) < 1e-6


def test_the_models_are_listed_and_answer_by_name_and_alias(http):
    listed = http.get("/v1/models").json()["data"]
    assert listed
    for model in listed:
        for name in (model["id"], *model["aliases"]):
            answer = embed(http, TEXTS[1], model=name)
            assert answer["model"] == model["id"]
            assert len(answer["data"][0]["embedding"]) == model["dimension"]
    assert embed(http, TEXTS[1])["model"] == listed[0]["id"]


def test_tokens_are_counted_and_a_cut_text_is_named(http):
    usage = embed(http, TEXTS)["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > len(TEXTS)
    answer = embed(http, ["short", "a very long text " * 600])
    assert answer["truncated"] == [1]
    assert all(math.isfinite(value) for value in answer["data"][1]["embedding"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 7}, "dimensions"),
        ({"input": "a", "input_type": "document"}, "input_type"),
        ({"input": "a", "typo": 1}, "typo"),
    ],
)
def test_bad_input_names_the_field(http, body, field):
    response = http.post("/v1/embeddings", json=body)
    assert response.status_code == 422
    assert any(error["field"].startswith(field) for error in response.json()["errors"])


def test_an_unknown_model_is_refused(http):
    response = http.post("/v1/embeddings", json={"input": "a", "model": "no-such-model"})
    assert response.status_code == 404
    assert "bilingual" in response.json()["detail"]
