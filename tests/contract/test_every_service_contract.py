"""What holds for every service: health, documents, problem documents, tracing, limits."""

from __future__ import annotations

import httpx2
import pytest

from services.chassis.openapi import service_names

pytestmark = pytest.mark.system


@pytest.fixture(params=service_names())
def client(request, system):
    with httpx2.Client(base_url=system.url(request.param), timeout=30) as client:
        yield client


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_the_operator_s_paths_answer(client, path):
    assert client.get(path).status_code == 200


def test_an_unknown_path_is_a_problem_document_with_the_request_id(client):
    response = client.get("/v1/no-such-thing", headers={"x-request-id": "contract-1"})
    assert response.status_code in (401, 404)
    assert response.headers["content-type"].startswith("application/problem+json")
    assert response.headers["x-request-id"] == response.json()["request_id"] == "contract-1"


def post_paths(client):
    """Paths that take a JSON body, with their parameters filled in."""
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if "application/json" in body and "{" not in path:
            yield path


@pytest.mark.parametrize(
    ("content", "statuses"),
    [
        (b"{", (400, 401, 422)),
        (b'{"no_such_field_1": 1}', (401, 422)),
        (b"[1, 2]", (401, 422)),
        (b'"text"', (401, 422)),
        (b'{"query": "\xff\xfe"}', (400, 401, 422)),
        (b"null", (401, 422)),
    ],
)
def test_bad_bodies_get_a_4xx_problem_on_every_endpoint(client, content, statuses):
    for path in post_paths(client):
        response = client.post(path, content=content, headers={"content-type": "application/json"})
        assert response.status_code in statuses, (path, response.status_code, response.text)
        problem = response.json()
        assert problem["type"].startswith("urn:rag-workshop:problem:"), path
        assert problem["detail"], path


def test_a_body_over_the_limit_is_refused_and_the_service_goes_on(client):
    huge = b'{"query": "' + b"x" * 60_000_000 + b'"}'
    for path in post_paths(client):
        try:
            response = client.post(path, content=huge, headers={"content-type": "application/json"})
            assert response.status_code in (401, 413), path
        except httpx2.TransportError:
            pass  # the answer was sent and the rest of the body not read: the connection closed
        assert client.get("/readyz").status_code == 200, path


def test_a_request_without_time_left_is_not_worked_on(client):
    for path in post_paths(client):
        response = client.post(path, json={}, headers={"x-deadline-ms": "0"})
        assert response.status_code == 504, path
