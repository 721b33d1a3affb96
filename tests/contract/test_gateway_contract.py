"""The contract of gateway, on the handbook that the system indexed."""

import json
import re
import time
import uuid

import pytest

pytestmark = pytest.mark.system

QUESTIONS = [
    ("en", "When does a circuit breaker open?"),
    ("pt", "Quando um disjuntor abre?"),
]


def events_of(http, path, body):
    with http.stream("POST", path, json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        name = "message"
        for line in response.iter_lines():
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                yield name, line[5:].strip()


@pytest.mark.parametrize(("language", "question"), QUESTIONS)
def test_an_answer_in_the_question_s_language_cites_what_it_was_given(http, language, question):
    response = http.post("/v1/answer", json={"question": question})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["id"] == response.headers["x-request-id"]
    assert answer["language"] == language
    assert answer["answer"].strip()
    numbers = {source["number"] for source in answer["sources"]}
    assert {citation["number"] for citation in answer["citations"]} <= numbers


@pytest.mark.parametrize(("language", "question"), QUESTIONS)
def test_a_stream_shows_sources_before_tokens_and_ends_with_the_checked_answer(
    http, language, question
):
    seen = [
        (name, json.loads(data))
        for name, data in events_of(http, "/v1/answer", {"question": question, "stream": True})
    ]
    names = [name for name, _ in seen]
    assert names[-1] == "answer"
    assert names.index("sources") < names.index("token")
    last = seen[-1][1]
    assert last["language"] == language
    draft = "".join(data["text"] for name, data in seen if name == "token")
    assert draft.strip()
    whole = http.post("/v1/answer", json={"question": question}).json()
    if last["degraded"] == whole["degraded"]:  # a machine too busy may lose a stage once
        assert last["answer"] == whole["answer"]


def test_a_conversation_goes_on_until_it_is_forgotten(http):
    first = http.post("/v1/answer", json={"question": QUESTIONS[0][1]}).json()
    conversation = first["conversation_id"]
    second = http.post(
        "/v1/answer", json={"question": "When does it close?", "conversation_id": conversation}
    ).json()
    assert second["conversation_id"] == conversation
    assert "circuit-breakers" in " ".join(source["document"] for source in second["sources"])
    path = f"/v1/conversations/{conversation}"
    assert len(http.get(path).json()["turns"]) == 2
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


@pytest.mark.parametrize("rerank", [False, True])
def test_search_gives_ranked_passages(http, rerank):
    response = http.post(
        "/v1/search",
        json={"query": QUESTIONS[0][1], "language": "en", "top_k": 5, "rerank": rerank},
    )
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["reranked"] is rerank
    assert len(found["hits"]) == 5
    scores = [hit["rerank_score" if rerank else "score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert any("circuit-breakers" in hit["passage"]["document"] for hit in found["hits"])


def test_a_document_can_be_added_found_and_deleted(http):
    name = f"contract-{uuid.uuid4().hex[:8]}"
    word = f"zorblax{uuid.uuid4().hex[:6]}"
    text = f"# Notes\n\nThe {word} regulator keeps the turbine below 400 degrees."
    accepted = http.post(
        "/v1/documents",
        files={"file": (f"{name}.md", text.encode(), "text/markdown")},
        data={"document_id": name},
    )
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()["job_id"]
    end = time.monotonic() + 60
    while http.get(f"/v1/jobs/{job}").json()["status"] not in ("done", "failed"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert http.get(f"/v1/jobs/{job}").json()["status"] == "done"
    with http.stream("GET", f"/v1/jobs/{job}/events") as response:
        assert "event: done" in response.read().decode()
    hits = http.post("/v1/search", json={"query": word}).json()["hits"]
    assert hits[0]["passage"]["document"] == name
    assert http.get(f"/v1/documents/{name}").json()["status"] == "done"
    removed = http.delete(f"/v1/documents/{name}")
    assert removed.status_code == 202
    job = removed.json()["job_id"]
    while http.get(f"/v1/jobs/{job}").json()["status"] not in ("done", "failed"):
        assert time.monotonic() < end
        time.sleep(0.2)
    documents = [
        hit["passage"]["document"]
        for hit in http.post("/v1/search", json={"query": word}).json()["hits"]
    ]
    assert name not in documents


def test_feedback_is_taken_and_a_repeat_is_known(http):
    key = uuid.uuid4().hex
    body = {"request_id": "contract-1", "kind": "thumbs", "value": 1}
    first = http.post("/v1/feedback", json=body, headers={"idempotency-key": key})
    assert first.status_code in (201, 202), first.text
    again = http.post("/v1/feedback", json=body, headers={"idempotency-key": key})
    assert again.json()["id"] == first.json()["id"]
    if first.status_code == again.status_code == 201:
        assert again.json()["duplicate"] is True


def test_chat_completions_answer_in_openai_s_shape(http):
    body = {
        "model": http.get("/v1/models").json()["data"][0]["id"],
        "messages": [{"role": "user", "content": QUESTIONS[0][1]}],
    }
    whole = http.post("/v1/chat/completions", json=body).json()
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"]["role"] == "assistant"
    text = whole["choices"][0]["message"]["content"]
    assert text == whole["rag"]["answer"]
    assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= set(whole["usage"])
    lines = [data for _, data in events_of(http, "/v1/chat/completions", body | {"stream": True})]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert streamed == chunks[-1]["rag"]["answer"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/answer", {}, "question"),
        ("/v1/answer", {"question": ""}, "question"),
        ("/v1/answer", {"question": "q", "top_k": "many"}, "top_k"),
        ("/v1/answer", {"question": "q", "filter": {"colour": ["red"]}}, "filter.colour"),
        ("/v1/search", {"query": "q", "top_k": 0}, "top_k"),
        ("/v1/search", {"query": "q", "lists": ["telepathy"]}, "lists.0"),
        ("/v1/feedback", {"request_id": "r", "kind": "clap"}, "kind"),
        ("/v1/documents", {"content": ""}, "content"),
        ("/v1/documents", {"content": "x", "colour": "red"}, "colour"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
    ],
)
def test_bad_input_names_the_field(http, path, body, field):
    response = http.post(path, json=body)
    assert response.status_code == 422
    assert field in [error["field"] for error in response.json()["errors"]]


def test_an_unknown_version_names_the_known_one(http):
    response = http.post("/v2/answer", json={"question": "q"})
    assert response.status_code == 404
    assert "/v1" in response.json()["detail"]


def test_the_limits_are_told_and_the_headers_are_safe(http):
    headers = http.get("/v1/models").headers
    assert re.search(r'"\w+";q=\d+;w=\d+', headers["ratelimit-policy"])
    assert re.search(r'"\w+";r=\d+;t=\d+', headers["ratelimit"])
    assert headers["x-content-type-options"] == "nosniff"
    page = http.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert "<script>" not in page.text


def test_a_large_body_is_refused(http):
    response = http.post("/v1/answer", content=b'{"question": "' + b"x" * 400_000 + b'"}')
    assert response.status_code == 413


def test_a_page_of_another_site_may_not_post(http):
    response = http.post(
        "/v1/answer", json={"question": "q"}, headers={"origin": "https://elsewhere.example"}
    )
    assert response.status_code in (401, 403)
