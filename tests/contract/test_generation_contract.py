"""The contract of generation: OpenAI's chat completions, with prompts by name."""

import json

import pytest

pytestmark = pytest.mark.system

PROMPT = {
    "template": "answer",
    "language": "en",
    "variables": {
        "question": "When does a circuit breaker open?",
        "context": "[1] A circuit breaker opens after five failures in a row.",
    },
}


def complete(http, **body):
    return http.post("/v1/chat/completions", json={"max_tokens": 40} | body)


def streamed(http, **body):
    with http.stream(
        "POST", "/v1/chat/completions", json={"max_tokens": 40, "stream": True} | body
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_prompt_by_name_is_answered_from_its_context(http):
    response = complete(http, prompt=PROMPT)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["object"] == "chat.completion"
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert "five" in message["content"] or "5" in message["content"]
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_a_stream_says_the_same_and_ends_with_reason_and_usage(http):
    whole = complete(http, prompt=PROMPT).json()
    chunks = streamed(http, prompt=PROMPT, stream_options={"include_usage": True})
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert choices[-1]["finish_reason"] in ("stop", "length")
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_plain_messages_are_answered_and_max_tokens_holds(http):
    messages = [{"role": "user", "content": "Tell me a long story about a ship."}]
    answer = complete(http, messages=messages, max_tokens=5).json()
    assert answer["usage"]["completion_tokens"] <= 5
    assert answer["choices"][0]["finish_reason"] == "length"


def test_an_answer_is_never_given_out_for_another_request(http):
    """Whatever is remembered: what differs in words or in limits is another request."""
    one = [{"role": "user", "content": "Count from one to ten."}]
    other = [{"role": "user", "content": "Count from one to ten, in Portuguese, please."}]
    first = complete(http, messages=one, max_tokens=3).json()["usage"]
    assert first["completion_tokens"] == 3
    assert complete(http, messages=one, max_tokens=1).json()["usage"]["completion_tokens"] == 1
    longer = complete(http, messages=other, max_tokens=3).json()["usage"]
    assert longer["prompt_tokens"] > first["prompt_tokens"]


def test_prompts_and_models_are_listed(http):
    prompts = http.get("/v1/prompts").json()["data"]
    assert {prompt["language"] for prompt in prompts if prompt["template"] == "answer"} >= {
        "en",
        "pt",
    }
    models = http.get("/v1/models").json()
    assert models["object"] == "list"
    assert complete(http, prompt=PROMPT, model=models["data"][0]["id"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "user"}]}, 422, "messages.0.content"),
        ({"prompt": PROMPT, "temperature": -1}, 422, "temperature"),
        ({"prompt": PROMPT | {"template": "no-such"}}, 422, "prompt.template"),
        ({"prompt": PROMPT | {"language": "xx"}}, 422, "prompt.language"),
        ({"prompt": PROMPT | {"variables": {}}}, 422, "prompt.variables"),
        ({"prompt": PROMPT, "model": "no-such-model"}, 404, "model"),
    ],
)
def test_bad_input_names_the_field_and_is_read_by_openai_clients(http, body, status, field):
    response = complete(http, **body)
    assert response.status_code == status
    problem = response.json()
    assert field in [error["field"] for error in problem["errors"]]
    assert problem["error"]["message"] == problem["detail"]
