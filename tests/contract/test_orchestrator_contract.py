"""The contract of orchestrator, on the handbook that the system indexed."""

import json

import pytest

pytestmark = pytest.mark.system

QUESTIONS = [
    ("en", "When does a circuit breaker open?"),
    ("pt", "Quando um disjuntor abre?"),
]
STAGES = [
    "query_preprocessing",
    "hybrid_search",
    "reranking",
    "context_aggregation",
    "generation",
    "post_processing",
]


@pytest.mark.parametrize(("language", "question"), QUESTIONS)
def test_an_answer_is_cited_timed_and_in_the_question_s_language(http, language, question):
    response = http.post("/v1/answer", json={"question": question})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["language"] == language
    assert answer["degraded"] == []
    assert answer["kind"] in ("generated", "extractive", "refusal")
    assert [timing["stage"] for timing in answer["timings"]] == STAGES
    numbers = {source["number"] for source in answer["sources"]}
    assert {citation["number"] for citation in answer["citations"]} <= numbers
    assert all(f"[{citation['number']}]" in answer["answer"] for citation in answer["citations"])


def test_the_stream_ends_with_the_same_answer_as_the_whole(http):
    question = QUESTIONS[0][1]
    whole = http.post("/v1/answer", json={"question": question}).json()
    names, last = [], None
    with http.stream("POST", "/v1/answer", json={"question": question, "stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("event:"):
                names.append(line[7:])
            elif line.startswith("data:"):
                last = json.loads(line[5:])
    assert names[-1] == "answer"
    assert names.index("sources") < names.index("token")
    assert last["answer"] == whole["answer"]
    assert last["citations"] == whole["citations"]


def test_a_conversation_is_kept_until_it_is_forgotten(http):
    question = QUESTIONS[0][1]
    first = http.post("/v1/answer", json={"question": question}).json()
    path = f"/v1/conversations/{first['conversation_id']}"
    assert http.get(path).json()["turns"][0]["question"] == question
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


def test_greetings_are_answered_without_search(http):
    answer = http.post("/v1/answer", json={"question": "Bom dia!"}).json()
    assert answer["kind"] == "small_talk"
    assert answer["language"] == "pt"
    assert answer["sources"] == []
