import base64
import re

import numpy as np
import pytest

from services.chassis.openapi import SERVICES, openapi_document
from services.chassis.testing import running
from services.embedding.api import create_app
from services.embedding.settings import Settings


@pytest.fixture
def settings(bilingual_folder, english_folder):
    return Settings(model_dir=bilingual_folder, english_model_dir=english_folder, threads=1)


@pytest.fixture
async def client(settings):
    async with running(create_app(settings)) as client:
        yield client


async def post(client, **body):
    return await client.post("/v1/embeddings", json=body)


async def test_a_string_gives_one_vector_of_the_default_model(client):
    answer = (await post(client, input="a b")).json()
    assert answer["object"] == "list"
    assert answer["model"] == "tiny-two"
    (item,) = answer["data"]
    assert (item["object"], item["index"]) == ("embedding", 0)
    assert np.linalg.norm(item["embedding"]) == pytest.approx(1.0, abs=1e-6)
    # <s> query : a b </s>
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert answer["truncated"] == []


async def test_a_list_keeps_its_order_and_repeated_texts(client):
    answer = (await post(client, input=["a", "b c", "a"])).json()
    vectors = [item["embedding"] for item in answer["data"]]
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert vectors[0] == vectors[2] != vectors[1]
    assert vectors[1] == (await post(client, input="b c")).json()["data"][0]["embedding"]
    assert answer["usage"]["prompt_tokens"] == 5 + 6 + 5


async def test_base64_holds_the_same_float32_numbers(client):
    plain = (await post(client, input="a")).json()["data"][0]["embedding"]
    packed = (await post(client, input="a", encoding_format="base64")).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), np.array(plain, np.float32))


async def test_models_are_chosen_by_name_or_alias(client):
    assert (await post(client, input="a", model="english")).json()["model"] == "tiny-en"
    assert (await post(client, input="a", model="tiny-two")).json()["model"] == "tiny-two"
    listed = (await client.get("/v1/models")).json()["data"]
    assert [(model["id"], model["aliases"]) for model in listed] == [
        ("tiny-two", ["bilingual"]),
        ("tiny-en", ["english"]),
    ]
    assert listed[0]["dimension"] == 8
    assert listed[0]["max_tokens"] == 16


async def test_an_unknown_model_is_a_404_that_names_the_known_ones(client):
    response = await post(client, input="a", model="ada")
    assert response.status_code == 404
    assert response.json()["type"].endswith("unknown-model")
    assert "tiny-two (bilingual), tiny-en (english)" in response.json()["detail"]


async def test_other_dimensions_are_refused_and_its_own_accepted(client):
    refused = await post(client, input="a", dimensions=4)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "dimensions"
    assert (await post(client, input="a", dimensions=8)).status_code == 200


async def test_a_cut_text_is_reported(client):
    answer = (await post(client, input=["a", "a b " * 50])).json()
    assert answer["truncated"] == [1]
    assert answer["usage"]["prompt_tokens"] == 5 + 16


async def test_queries_and_passages_are_cached_apart(client):
    query = (await post(client, input="a")).json()["data"][0]["embedding"]
    passage = (await post(client, input="a", input_type="passage")).json()
    assert passage["data"][0]["embedding"] != query
    assert (await post(client, input="a")).json()["data"][0]["embedding"] == query


async def test_metrics_count_hits_misses_tokens_and_batches(client):
    for text in ("a", "a", "b"):
        await post(client, input=text)
    metrics = (await client.get("/metrics")).text

    def value(name):
        return float(re.search(rf'^{name}{{model="tiny-two"}} (\S+)$', metrics, re.M)[1])

    assert value("embedding_cache_hits_total") == 1
    assert value("embedding_cache_misses_total") == 2
    assert value("embedding_tokens_total") == 10
    assert value("embedding_batch_size_count") == 2
    assert value("embedding_queue_wait_seconds_count") == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": 7}, "input"),
        ({"input": None}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "input_type": "document"}, "input_type"),
        ({"input": "a", "inputs": "b"}, "inputs"),
    ],
)
async def test_bad_input_names_the_field(client, body, field):
    response = await client.post("/v1/embeddings", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert any(error["field"].startswith(field) for error in response.json()["errors"])


async def test_token_numbers_get_a_way_out(client):
    assert "send the text itself" in (await post(client, input=[[1, 2]])).json()["detail"]


async def test_half_a_surrogate_pair_is_refused(client):
    response = await client.post(
        "/v1/embeddings",
        content=rb'{"input": "a \ud800 b"}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 422


async def test_pooling_and_choice_are_what_the_service_was_given(settings):
    chosen = []

    def first_token(hidden, mask):
        return hidden[:, 0]

    def one_at_a_time(lengths, max_items, max_tokens):
        chosen.append(len(lengths))
        return [0]

    app = create_app(settings, pool=first_token, choose=one_at_a_time)
    async with running(app) as client:
        data = (await post(client, input=["a", "b c", "d e f"])).json()["data"]
    # Every text begins with the same token, so its hidden state is all that this pooling sees.
    assert data[0]["embedding"] == data[1]["embedding"] == data[2]["embedding"]
    assert chosen == [3, 2, 1]


async def test_without_time_left_nothing_is_run(client):
    response = await client.post(
        "/v1/embeddings", json={"input": "a"}, headers={"x-deadline-ms": "0"}
    )
    assert response.status_code == 504


async def test_the_english_model_is_optional(bilingual_folder, tmp_path):
    settings = Settings(model_dir=bilingual_folder, english_model_dir=tmp_path / "absent")
    async with running(create_app(settings)) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["tiny-two"]
        assert (await post(client, input="a", model="english")).status_code == 404


async def test_without_its_model_it_never_looks_ready(tmp_path):
    settings = Settings(model_dir=tmp_path / "absent")
    with pytest.raises(RuntimeError, match=r"model folder .*absent is not there"):
        async with running(create_app(settings)):
            pass


def test_the_committed_openapi_is_the_codes():
    assert (SERVICES / "embedding/openapi.json").read_bytes() == openapi_document("embedding")
