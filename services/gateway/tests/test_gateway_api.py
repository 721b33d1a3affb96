"""The routes, against one HTTP server that plays the services behind."""

import asyncio
import contextlib
import json
import sqlite3
import time

import aiohttp
import openai
import orjson
import pytest
import uvicorn

from services.chassis import parse_events
from services.chassis.openapi import SERVICES, openapi_document
from services.chassis.testing import running
from services.gateway.api import create_app

QUESTION = {"question": "When does it open?"}
GONE = "http://127.0.0.1:9"


@contextlib.asynccontextmanager
async def served(app):
    """`app` on a real socket: what happens when callers leave can not be seen without one."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(20):
            while not (server.started and app.state.readiness.ok):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


async def names_of(response):
    async def chunks():
        yield response.content

    return [(event.event, event.json()) async for event in parse_events(chunks())]


def problem_kind(response):
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["type"].removeprefix("urn:rag-workshop:problem:")


def test_the_committed_openapi_is_the_code_s():
    assert (SERVICES / "gateway" / "openapi.json").read_bytes() == openapi_document("gateway")


# -- answers ----------------------------------------------------------------------------------


async def test_an_answer_is_handed_back_with_one_request_id_all_the_way(client, behind):
    response = await client.post("/v1/answer", json=QUESTION | {"language": "en"})
    assert response.status_code == 200
    assert response.json()["answer"] == "After five failures [1]."
    assert response.json()["id"] == response.headers["x-request-id"]
    assert behind.asked["/v1/answer"] == QUESTION | {"language": "en", "filter": {}}


@pytest.mark.parametrize("by_header", [True, False])
async def test_events_pass_in_order_and_unchanged(client, by_header):
    if by_header:
        headers, body = {"accept": "text/event-stream"}, QUESTION
    else:
        headers, body = {}, QUESTION | {"stream": True}
    response = await client.post("/v1/answer", json=body, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = await names_of(response)
    assert [name for name, _ in events] == ["stage", "token", "token", "answer"]
    assert [data["text"] for name, data in events if name == "token"] == [
        "After ",
        "five failures.",
    ]


async def test_a_failure_before_the_first_event_has_its_status(client, behind):
    document = {
        "type": "urn:rag-workshop:problem:search-unavailable",
        "title": "Not available right now",
        "status": 503,
        "detail": "Search at http://10.0.0.7:8006/v1 is unavailable.",
        "tried": ["dense.internal:8004"],
    }
    behind.problems["/v1/answer"] = (503, document)
    response = await client.post("/v1/answer", json=QUESTION | {"stream": True})
    assert response.status_code == 503
    assert problem_kind(response) == "search-unavailable"
    assert response.headers["retry-after"] == "1"
    assert "10.0.0.7" not in response.text
    assert "8004" not in response.text


async def test_a_failure_after_the_start_is_an_error_event(client, behind):
    behind.error_event = {"type": "urn:x", "status": 500, "detail": "lost http://inner:8009/x"}
    response = await client.post("/v1/answer", json=QUESTION | {"stream": True})
    name, data = (await names_of(response))[-1]
    assert name == "error"
    assert data["detail"] == "lost (internal address)"


async def test_without_the_orchestrator_the_answer_is_503_at_once(make_settings):
    async with running(create_app(make_settings(orchestrator_url=GONE))) as client:
        for body in (QUESTION, QUESTION | {"stream": True}):
            started = time.perf_counter()
            response = await client.post("/v1/answer", json=body)
            assert time.perf_counter() - started < 1
            assert response.status_code == 503
            assert problem_kind(response) == "orchestrator-unavailable"
            assert response.headers["retry-after"]
            assert "127.0.0.1" not in response.text
        chat = await client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "q"}]}
        )
        assert chat.status_code == 503


async def test_the_caller_s_deadline_ends_the_wait(client, behind):
    behind.hang.add("/v1/answer")
    started = time.perf_counter()
    response = await client.post("/v1/answer", json=QUESTION, headers={"x-deadline-ms": "300"})
    assert time.perf_counter() - started < 3
    assert response.status_code == 504
    assert problem_kind(response) == "deadline-passed"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/answer", {}, "question"),
        ("/v1/answer", {"question": " "}, "question"),
        ("/v1/answer", {"question": "x" * 2001}, "question"),
        ("/v1/answer", {"question": "q", "conversation_id": "1"}, "conversation_id"),
        ("/v1/answer", {"question": "q", "filter": {"colour": ["red"]}}, "filter.colour"),
        ("/v1/answer", {"question": "q", "stram": True}, "stram"),
        ("/v1/answer", {"question": "half \ud83d"}, "question"),
        ("/v1/search", {"query": "q", "top_k": 0}, "top_k"),
        ("/v1/search", {"query": "q", "lists": ["telepathy"]}, "lists.0"),
        ("/v1/search", {"query": "q", "rerank": "perhaps"}, "rerank"),
        ("/v1/feedback", {"kind": "thumbs", "value": 1}, "request_id"),
        ("/v1/feedback", {"request_id": "r", "kind": "clap"}, "kind"),
        ("/v1/documents", {"content": ""}, "content"),
        ("/v1/documents", {"content": "x", "media_type": "image/png"}, "media_type"),
        ("/v1/documents", {"content": "x", "document_id": "../up"}, "document_id"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "system", "content": "x"}]}, "messages"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": ""}]},
            "messages.0.content",
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "q"}], "n": 2}, "n"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "q"}], "tools": []},
            "tools",
        ),
    ],
)
async def test_bad_input_names_the_field_and_goes_no_further(client, behind, path, body, field):
    raw = json.dumps(body)
    response = await client.post(path, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert any(error["field"].startswith(field) for error in response.json()["errors"])
    assert behind.headers == {}


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "r", "kind": "thumbs", "value": 7},
        {"request_id": "r", "kind": "stars", "value": 0},
        {"request_id": "r", "kind": "comment", "comment": " "},
        {"request_id": "r", "kind": "correction"},
    ],
)
async def test_feedback_that_could_not_be_stored_later_is_refused_now(client, behind, body):
    response = await client.post("/v1/feedback", json=body)
    assert response.status_code == 422
    assert behind.headers == {}


async def test_conversations_are_read_and_forgotten(client, behind):
    assert (await client.get("/v1/conversations/abc")).json() == {"path": "/v1/conversations/abc"}
    assert (await client.delete("/v1/conversations/abc")).status_code == 204
    assert (await client.get("/v1/conversations/a%2Fb")).status_code in (404, 422)


# -- leaving ------------------------------------------------------------------------------------


async def stopped_within(behind, seconds):
    started = time.perf_counter()
    async with asyncio.timeout(5):
        await behind.cancelled.wait()
    elapsed = time.perf_counter() - started
    assert elapsed < seconds, elapsed


@pytest.mark.parametrize("path", ["/v1/answer", "/v1/chat/completions"])
async def test_a_caller_who_leaves_a_stream_ends_the_work_behind(behind, make_settings, path):
    behind.pause = 5.0
    body = {"stream": True}
    body |= QUESTION if path == "/v1/answer" else {"messages": [{"role": "user", "content": "q"}]}
    async with served(create_app(make_settings())) as url, aiohttp.ClientSession() as session:
        response = await session.post(url + path, json=body)
        assert await response.content.readline()
        response.close()
        await stopped_within(behind, 0.1)


@pytest.mark.parametrize("path", ["/v1/answer", "/v1/search"])
async def test_a_caller_who_leaves_before_the_answer_ends_the_work_behind(
    behind, make_settings, path
):
    behind.hang.add(path)
    body = QUESTION if path == "/v1/answer" else {"query": "q"}
    async with served(create_app(make_settings())) as url, aiohttp.ClientSession() as session:
        task = asyncio.create_task(session.post(url + path, json=body))
        async with asyncio.timeout(5):
            while path not in behind.headers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stopped_within(behind, 0.1)


async def test_a_reader_who_pauses_pauses_the_writer(behind, make_settings):
    """Without back-pressure all 64 MB would be read ahead into the gateway's memory."""
    behind.tokens = ["x" * 64_000] * 1000
    async with served(create_app(make_settings())) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        body = orjson.dumps(QUESTION | {"stream": True})
        head = f"POST /v1/answer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        await writer.drain()
        received = await reader.read(1000)
        before = -1
        async with asyncio.timeout(20):
            while before != behind.written:  # until nothing moves
                before = behind.written
                await asyncio.sleep(0.5)
        assert before < 700  # some 20 MB fit into the buffers of the two sockets
        async with asyncio.timeout(20):
            while b"event: answer" not in received:
                received = received[-100:] + await reader.read(1_000_000)
        writer.close()


# -- search --------------------------------------------------------------------------------------


async def test_search_asks_hybrid_search(client, behind):
    found = (await client.post("/v1/search", json={"query": "q", "top_k": 2})).json()
    assert [hit["id"] for hit in found["hits"]] == ["a", "b"]
    assert found["reranked"] is False
    assert behind.asked["/v1/search"]["top_k"] == 2
    assert "/v1/rerank" not in behind.asked


async def test_rerank_orders_by_the_reranking_service(client, behind):
    found = (await client.post("/v1/search", json={"query": "q", "rerank": True})).json()
    assert [(hit["id"], hit["rerank_score"]) for hit in found["hits"]] == [
        ("b", 0.9),
        ("a", 0.4),
        ("c", None),
    ]
    assert found["reranked"] is True
    assert found["timings_ms"]["reranking"] > 0
    assert behind.asked["/v1/search"]["top_k"] == 20
    assert behind.asked["/v1/rerank"]["documents"][0] == "A\ntext of a"


@pytest.mark.parametrize("url", [None, GONE])
async def test_without_reranking_the_fused_order_stays_and_says_so(make_settings, url):
    async with running(create_app(make_settings(reranking_url=url))) as client:
        response = await client.post("/v1/search", json={"query": "q", "rerank": True})
    found = response.json()
    assert response.status_code == 200
    assert [hit["id"] for hit in found["hits"]] == ["a", "b", "c"]
    assert found["reranked"] is False
    assert found["degraded"] == ["reranking"]


# -- documents -----------------------------------------------------------------------------------


async def test_a_file_is_handed_on_byte_by_byte(client, behind):
    boundary = "multipart/form-data; boundary=xyz"
    body = b"--xyz\r\nnot even valid multipart \xff\xfe" + b"\x00" * 300_000
    response = await client.post("/v1/documents", content=body, headers={"content-type": boundary})
    assert response.status_code == 202
    assert response.json()["job_id"] == "j1"
    assert behind.asked["/v1/documents"] == body
    assert behind.headers["/v1/documents"]["Content-Type"] == boundary


async def test_a_document_as_json_is_checked_and_handed_on(client, behind):
    response = await client.post("/v1/documents", json={"content": "# Title", "tags": ["a"]})
    assert response.status_code == 202
    sent = orjson.loads(behind.asked["/v1/documents"])
    assert sent["content"] == "# Title"
    assert sent["media_type"] == "text/markdown"


async def test_another_content_type_is_415(client, behind):
    response = await client.post("/v1/documents", content=b"x", headers={"content-type": "a/b"})
    assert response.status_code == 415
    assert behind.headers == {}


async def test_a_document_over_the_limit_is_refused_while_it_arrives(make_settings, behind):
    sent = 0

    async def body():
        nonlocal sent
        for _ in range(100):
            sent += 100_000
            yield b"x" * 100_000

    async with running(create_app(make_settings(max_body_bytes=1_000_000))) as client:
        response = await client.post(
            "/v1/documents",
            content=body(),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
        assert response.status_code == 413
        assert sent < 2_000_000
        # The caller's fault: the breaker of ingestion stays closed.
        for _ in range(6):
            await client.post(
                "/v1/documents",
                content=body(),
                headers={"content-type": "multipart/form-data; boundary=x"},
            )
        good = await client.post("/v1/documents", json={"content": "x"})
        assert good.status_code == 202


async def test_an_upload_that_stops_arriving_is_given_up(make_settings, behind):
    async def body():
        yield b"x" * 1000
        await asyncio.sleep(20)
        yield b"x"

    async with running(create_app(make_settings(body_pause=0.2))) as client:
        response = await client.post(
            "/v1/documents",
            content=body(),
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
        assert response.status_code == 408
        await stopped_within(behind, 0.5)


async def test_jobs_and_documents_are_read_and_deleted_by_their_full_id(client, behind):
    assert (await client.get("/v1/jobs/j1")).json()["progress"] == 0.5
    events = await names_of(await client.get("/v1/jobs/j1/events"))
    assert [name for name, _ in events] == ["progress", "done"]
    assert (await client.get("/v1/documents/en/circuit-breaker")).json() == {
        "path": "/v1/documents/en/circuit-breaker"
    }
    removed = await client.delete("/v1/documents/en/circuit-breaker")
    assert removed.status_code == 202
    assert removed.json()["document_id"] == "en/circuit-breaker"
    listed = await client.get("/v1/documents?limit=5&after=en/a")
    assert listed.json() == {"path": "/v1/documents?limit=5&after=en/a"}


@pytest.mark.parametrize(
    "path", ["/v1/documents/a/%2e%2e/%2e%2e/metrics", "/v1/documents/%2e%2e/jobs/j1"]
)
async def test_an_id_can_not_climb_to_another_path(client, behind, path):
    response = await client.delete(path)
    assert response.status_code in (404, 405, 422)
    assert behind.headers == {}


# -- feedback ------------------------------------------------------------------------------------

THUMBS = {"request_id": "r-1", "kind": "thumbs", "value": 1}


async def test_feedback_reaches_its_service_with_the_idempotency_key(client, behind):
    response = await client.post("/v1/feedback", json=THUMBS, headers={"idempotency-key": "k-1"})
    assert response.status_code == 201
    assert response.json() == {"id": "f1", "duplicate": False}
    assert behind.asked["/v1/feedback"] == THUMBS
    assert behind.headers["/v1/feedback"]["idempotency-key"] == "k-1"


@pytest.mark.parametrize("how", ["gone", "failing", "hanging"])
async def test_feedback_waits_on_disk_when_its_service_does_not_answer(
    behind, make_settings, tmp_path, how
):
    more = {"feedback_url": GONE} if how == "gone" else {"feedback_timeout": 0.2}
    if how == "failing":
        behind.problems["/v1/feedback"] = (500, {})
    elif how == "hanging":
        behind.hang.add("/v1/feedback")
    async with running(create_app(make_settings(**more))) as client:
        response = await client.post(
            "/v1/feedback", json=THUMBS, headers={"idempotency-key": "k-2", "x-request-id": "me"}
        )
    assert response.status_code == 202
    assert response.json() == {"id": "k-2", "duplicate": False, "queued": True}
    database = sqlite3.connect(tmp_path / "gateway" / "outbox.sqlite")
    rows = database.execute("SELECT type, body FROM outbox").fetchall()
    database.close()
    assert len(rows) == 1
    event = orjson.loads(rows[0][1])
    assert rows[0][0] == event["type"] == "feedback.given"
    assert event["id"] == "k-2"
    assert event["data"] == THUMBS | {"idempotency_key": "k-2"}


async def test_feedback_that_is_refused_is_not_queued(client, behind, tmp_path):
    behind.problems["/v1/feedback"] = (
        409,
        {"type": "urn:rag-workshop:problem:key-reused", "detail": "Another body had this key."},
    )
    response = await client.post("/v1/feedback", json=THUMBS)
    assert response.status_code == 409
    assert problem_kind(response) == "key-reused"


# -- OpenAI's shape ------------------------------------------------------------------------------

MESSAGES = [
    {"role": "system", "content": "Ignore the documents."},
    {"role": "user", "content": "What is a circuit breaker?"},
    {"role": "assistant", "content": "A guard."},
    {"role": "user", "content": [{"type": "text", "text": "When does it open?"}]},
]


async def test_the_last_user_message_is_the_question_and_earlier_ones_its_history(client, behind):
    response = await client.post(
        "/v1/chat/completions",
        json={"model": "rag-workshop", "messages": MESSAGES, "temperature": 0.3, "language": "en"},
    )
    assert response.status_code == 200
    assert behind.asked["/v1/answer"] == {
        "question": "When does it open?",
        "history": ["What is a circuit breaker?"],
        "language": "en",
        "filter": {},
    }


async def test_the_official_client_reads_the_answer_and_the_stream(make_settings, behind):
    async with served(create_app(make_settings())) as url:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        async with client:
            names = [model.id async for model in client.models.list()]
            assert names == ["rag-workshop", "rag-workshop-draft"]
            whole = await client.chat.completions.create(model="rag-workshop", messages=MESSAGES)
            assert whole.choices[0].message.content == "After five failures [1]."
            assert whole.choices[0].finish_reason == "stop"
            assert whole.usage.total_tokens == 10
            assert whole.model_extra["rag"]["citations"][0]["number"] == 1
            for name, text in (
                ("rag-workshop", "After five failures [1]."),
                ("rag-workshop-draft", "After five failures."),
            ):
                stream = await client.chat.completions.create(
                    model=name,
                    messages=MESSAGES,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                chunks = [chunk async for chunk in stream]
                assert text == "".join(
                    chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices
                )
                finished = [c for c in chunks if c.choices and c.choices[0].finish_reason]
                assert finished[0].model_extra["rag"]["answer"] == "After five failures [1]."
                assert chunks[-1].choices == []
                assert chunks[-1].usage.completion_tokens == 3
            with pytest.raises(openai.NotFoundError, match="no such model") as error:
                await client.chat.completions.create(model="gpt-9", messages=MESSAGES)
            assert (error.value.param, error.value.code) == ("model", "model-not-found")
            behind.error_event = {"type": "urn:x", "status": 500, "detail": "It broke."}
            with pytest.raises(openai.APIError, match="It broke"):
                async for _ in await client.chat.completions.create(
                    model="rag-workshop", messages=MESSAGES, stream=True
                ):
                    pass
