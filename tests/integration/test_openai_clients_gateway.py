"""Strangers' clients against the running system: the official `openai`, and langchain-openai."""

import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

pytestmark = pytest.mark.system

QUESTIONS = {
    "en": "When does a circuit breaker open?",
    "pt": "Quando um disjuntor abre?",
}


def client_of(system, name):
    return openai.OpenAI(base_url=f"{system.url(name)}/v1", api_key="none", timeout=90)


def user(text):
    return [{"role": "user", "content": text}]


def test_openai_embeddings(system):
    with client_of(system, "embedding") as client:
        one = client.embeddings.create(model="multilingual-e5-small-enpt", input="hello")
        many = client.embeddings.create(
            model="multilingual-e5-small-enpt", input=["hello", "olá"], encoding_format="float"
        )
    assert len(many.data) == 2
    first, second = one.data[0].embedding, many.data[0].embedding
    assert len(first) == len(second) == 384
    assert first == pytest.approx(second, abs=1e-3)
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-3)


def test_langchain_embeddings(system):
    embeddings = OpenAIEmbeddings(
        base_url=f"{system.url('embedding')}/v1",
        api_key=SecretStr("none"),
        model="multilingual-e5-small-enpt",
        check_embedding_ctx_length=False,
    )
    near, far = embeddings.embed_documents(["a circuit breaker", "a bowl of soup"])
    query = embeddings.embed_query("circuit breakers")

    def cosine(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert cosine(query, near) > cosine(query, far)


def test_openai_chat_of_generation(system):
    with client_of(system, "generation") as client:
        name = client.models.list().data[0].id
        asked = {"model": name, "messages": user("Say the word yes."), "max_tokens": 8, "seed": 1}
        whole = client.chat.completions.create(**asked)
        stream = client.chat.completions.create(**asked, stream=True)
        streamed = "".join(
            chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices
        )
    assert whole.choices[0].message.content
    assert streamed == whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0


@pytest.mark.parametrize("language", ["en", "pt"])
def test_openai_chat_of_the_whole_pipeline(indexed, language):
    messages = [
        {"role": "system", "content": "Answer like a pirate."},
        *user(QUESTIONS[language]),
    ]
    with client_of(indexed, "gateway") as client:
        names = [model.id for model in client.models.list()]
        whole = client.chat.completions.create(model=names[0], messages=messages)
        stream = client.chat.completions.create(
            model=names[0], messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    rag = whole.model_extra["rag"]
    assert whole.choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == rag["answer"]
    assert rag["language"] == language
    assert {citation["number"] for citation in rag["citations"]} <= {
        source["number"] for source in rag["sources"]
    }
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    last = next(chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason)
    assert text == last.model_extra["rag"]["answer"]
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + (
        chunks[-1].usage.completion_tokens
    )


def test_a_follow_up_is_understood_from_the_earlier_user_messages(indexed):
    messages = [
        *user("What is a circuit breaker?"),
        {"role": "assistant", "content": "A guard around calls."},
        *user("When does it open?"),
    ]
    with client_of(indexed, "gateway") as client:
        answer = client.chat.completions.create(model="rag-workshop", messages=messages)
    documents = {source["document"] for source in answer.model_extra["rag"]["sources"]}
    assert "en/retries-and-circuit-breakers" in documents


def test_langchain_chat_of_the_whole_pipeline(indexed):
    model = ChatOpenAI(
        base_url=f"{indexed.url('gateway')}/v1",
        api_key=SecretStr("none"),
        model="rag-workshop",
        timeout=90,
        max_retries=0,
    )
    whole = model.invoke(QUESTIONS["en"])
    assert whole.content
    assert whole.usage_metadata["total_tokens"] >= 0
    pieces = [str(chunk.content) for chunk in model.stream(QUESTIONS["en"])]
    assert len([piece for piece in pieces if piece]) > 3


def test_a_wrong_model_is_the_client_s_own_kind_of_error(system):
    with (
        client_of(system, "gateway") as client,
        pytest.raises(openai.NotFoundError, match="rag-workshop"),
    ):
        client.chat.completions.create(model="gpt-9", messages=user("q"))
