"""Pure decisions of the gateway."""

import pytest

from services.gateway.chat import finish_reason, usage
from services.gateway.domain import (
    NoQuestion,
    index_text,
    question_and_history,
    reordered,
    scrubbed,
)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("gone: http://10.1.2.3:8006/v1/search?x=1.", "gone: (internal address)"),
        ("connect to 127.0.0.1:8001 failed", "connect to (internal address) failed"),
        ("host dense-retrieval:8004 is down", "host (internal address) is down"),
        ("nats://user:pw@broker:4222", "(internal address)"),
        ("top_k: must be 1 to 50 at 12:30", "top_k: must be 1 to 50 at 12:30"),
        ("filter.language.0: too long", "filter.language.0: too long"),
    ],
)
def test_addresses_do_not_leave_and_other_text_does(text, clean):
    assert scrubbed(text) == clean


def test_scrubbing_goes_into_lists_and_members_but_not_into_the_type():
    document = {"type": "urn:rag-workshop:problem:x", "errors": [{"problem": "at http://a:1/b"}]}
    assert scrubbed(document) == {
        "type": "urn:rag-workshop:problem:x",
        "errors": [{"problem": "at (internal address)"}],
    }


def test_index_text_is_title_heading_and_text():
    assert index_text({"title": "T", "heading": "H", "text": "x"}) == "T — H\nx"
    assert index_text({"title": "T", "heading": "", "text": "x"}) == "T\nx"
    assert index_text({"title": "", "heading": "", "text": "x"}) == "x"


def test_what_the_reranker_left_out_keeps_its_place_at_the_end():
    hits = [{"id": name} for name in "abcd"]
    results = [
        {"index": 3, "relevance_score": 0.2},
        {"index": 1, "relevance_score": 0.2},
        {"index": 2, "relevance_score": 0.9},
    ]
    assert [hit["id"] for hit in reordered(hits, results, 10)] == ["c", "b", "d", "a"]
    assert [hit["id"] for hit in reordered(hits, results, 2)] == ["c", "b"]


def test_history_is_bounded_and_holds_user_messages_only():
    messages = [("user", f"q{n}") for n in range(30)] + [("assistant", "a"), ("user", "last")]
    question, history = question_and_history(messages)
    assert question == "last"
    assert history == [f"q{n}" for n in range(10, 30)]
    assert question_and_history([("user", "x" * 5000), ("user", "q")])[1] == ["x" * 2000]


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([("system", "x")], "messages"),
        ([("user", "q"), ("user", "  ")], "messages.1.content"),
        ([("user", "x" * 2001)], "messages.0.content"),
    ],
)
def test_messages_without_a_question_name_the_place(messages, field):
    with pytest.raises(NoQuestion) as error:
        question_and_history(messages)
    assert error.value.field == field


def test_a_blocked_answer_says_so_and_no_generation_costs_nothing():
    assert finish_reason({"kind": "blocked"}) == "content_filter"
    assert finish_reason({"kind": "refusal"}) == "stop"
    assert usage({"usage": None}) == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }
