import asyncio
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, BackgroundTasks, Request

from services.chassis import ApiModel, Problem, ServiceSettings, create_service, current
from services.chassis.testing import running


class Echo(ApiModel):
    text: str


def build(resources=None, **settings):
    router = APIRouter()
    gate = asyncio.Event()

    @router.post("/echo")
    async def echo(body: Echo) -> Echo:
        return body

    @router.get("/context")
    async def context() -> dict[str, object]:
        here = current()
        return {"trace": here.trace_id, "parent": here.parent_id, "left": here.deadline.left}

    @router.get("/wait")
    async def wait() -> str:
        await gate.wait()
        return "done"

    @router.get("/early")
    async def early(after: BackgroundTasks) -> str:
        after.add_task(asyncio.sleep, 0.5)
        return "done"

    @router.get("/crash")
    async def crash(request: Request) -> None:
        raise KeyError("secret value 42")

    @router.get("/teapot")
    async def teapot() -> None:
        raise Problem(409, "conflict-of-tests", "Try another pot.", pot="red")

    app = create_service(
        ServiceSettings(**settings), title="t", description="d", router=router, resources=resources
    )
    app.state.gate = gate
    return app


@pytest.fixture
async def client():
    async with running(build(max_concurrency=2, max_body_bytes=1000)) as client:
        yield client


async def test_health_readiness_metrics_and_documents_are_there(client):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert (await client.get(path)).status_code == 200, path


async def test_request_id_and_trace_are_continued_with_a_new_span(client):
    trace, span = "a" * 32, "b" * 16
    response = await client.get(
        "/v1/context",
        headers={"x-request-id": "req-1", "traceparent": f"00-{trace}-{span}-01"},
    )
    assert response.headers["x-request-id"] == "req-1"
    assert response.json()["trace"] == trace
    assert response.json()["parent"] == span


@pytest.mark.parametrize("bad", ["nonsense", f"00-{'0' * 32}-{'b' * 16}-01", "00-xyz-1-01"])
async def test_a_malformed_traceparent_starts_a_new_trace(client, bad):
    body = (await client.get("/v1/context", headers={"traceparent": bad})).json()
    assert len(body["trace"]) == 32
    assert body["parent"] is None


async def test_a_request_id_with_line_breaks_or_markup_is_not_taken_over(client):
    response = await client.get("/v1/context", headers={"x-request-id": "<script>"})
    assert "<" not in response.headers["x-request-id"]


async def test_the_deadline_comes_from_the_caller_but_not_above_the_default(client):
    short = (await client.get("/v1/context", headers={"x-deadline-ms": "500"})).json()["left"]
    long = (await client.get("/v1/context", headers={"x-deadline-ms": "999999"})).json()["left"]
    assert 0.3 < short <= 0.5
    assert 29 < long <= 30


async def test_work_that_cannot_finish_is_not_started(client):
    response = await client.get("/v1/context", headers={"x-deadline-ms": "0"})
    assert response.status_code == 504
    assert response.json()["type"].endswith("deadline-passed")


async def test_beyond_the_bound_requests_are_refused_at_once_and_health_still_answers():
    app = build(max_concurrency=2)
    async with running(app) as client:
        waiting = [asyncio.create_task(client.get("/v1/wait")) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await client.get("/v1/context")
        health = await client.get("/healthz")
        app.state.gate.set()
        done = await asyncio.gather(*waiting)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["type"].endswith("overloaded")
    assert health.status_code == 200
    assert [response.status_code for response in done] == [200, 200]


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(client):
    async def chunks():
        for _ in range(20):
            yield b"x" * 100

    for content in (b"x" * 2000, chunks()):
        response = await client.post(
            "/v1/echo", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 413
        assert response.json()["type"].endswith("body-too-large")


@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"{", 400, "malformed-json"),
        (b'{"text": "\xff"}', 400, "malformed-body"),
        (b'{"text": 3}', 422, "invalid-field"),
        (b'{"text": "a", "txt": "b"}', 422, "invalid-field"),
        (b"[]", 422, "invalid-field"),
        (b"", 422, "invalid-field"),
        (b'{"text": "\\ud800"}', 422, "invalid-field"),
    ],
)
async def test_bad_bodies_are_problem_documents(client, content, status, kind):
    response = await client.post(
        "/v1/echo", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith(kind)
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_a_crash_leaves_no_detail_outside_the_log(client):
    response = await client.get("/v1/crash")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "Traceback" not in response.text


async def test_a_problem_keeps_its_own_members(client):
    response = await client.get("/v1/teapot")
    assert response.status_code == 409
    assert response.json()["pot"] == "red"


async def test_unknown_paths_and_methods_are_problems_too(client):
    assert (await client.get("/v1/nothing")).json()["type"].endswith("not-found")
    assert (await client.get("/v1/echo")).json()["type"].endswith("method-not-allowed")


async def test_requests_are_counted_by_route_and_status(client):
    await client.post("/v1/echo", json={"text": "a"})
    await client.post("/v1/echo", json={"text": 1})
    text = (await client.get("/metrics")).text
    assert 'route="/v1/echo",status="200"} 1.0' in text
    assert 'route="/v1/echo",status="422"} 1.0' in text
    assert "/healthz" not in text


async def test_a_service_whose_resources_fail_lives_but_never_reports_ready():
    @asynccontextmanager
    async def broken(app):
        raise OSError("model file is missing")
        yield

    app = build(broken)
    with pytest.raises(RuntimeError, match="model file is missing"):
        async with running(app):
            pass


async def test_requests_wait_for_no_resources_while_starting():
    held = asyncio.Event()

    @asynccontextmanager
    async def slow(app):
        await held.wait()
        yield

    app = build(slow)
    with pytest.raises(RuntimeError, match="starting"):
        async with running(app, timeout=0.1):
            pass
    held.set()


async def test_a_request_is_timed_up_to_the_last_byte_of_its_answer(client):
    await client.get("/v1/early")
    metrics = (await client.get("/metrics")).text
    name = "http_request_duration_seconds_sum"
    (line,) = (x for x in metrics.splitlines() if x.startswith(name) and "/v1/early" in x)
    assert 0 < float(line.rpartition(" ")[2]) < 0.4


async def test_a_service_that_drains_is_red_and_serves_all_the_same(client):
    client._transport.app.state.readiness.drain()
    assert (await client.get("/readyz")).status_code == 503
    response = await client.post("/v1/echo", json={"text": "x"})
    assert response.status_code == 200
    assert response.headers["connection"] == "close"
