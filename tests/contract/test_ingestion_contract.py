"""What any ingestion service must do, whoever wrote it. Its worker must be running."""

import time
import uuid

import pytest

PAGE = "# Contract page\n\nOpening words.\n\n## One section\n\nIts own text.\n"


@pytest.fixture
def document_id(http):
    name = f"contract/{uuid.uuid4().hex}"
    yield name
    http.delete(f"/v1/documents/{name}")


def send(http, document_id, content=PAGE, **fields):
    body = {"document_id": document_id, "content": content, "language": "en"} | fields
    answer = http.post("/v1/documents", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def ended(http, job_id, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = http.get(f"/v1/jobs/{job_id}").json()
        if job["status"] in ("done", "failed"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job did not end within {seconds} s: {job}")


def test_a_document_is_accepted_and_indexed(http, document_id):
    sent = send(http, document_id)
    assert sent["document_id"] == document_id
    assert sent["unchanged"] is False
    job = ended(http, sent["job_id"])
    assert (job["status"], job["progress"], job["passages"]) == ("done", 1.0, 2)
    document = http.get(f"/v1/documents/{document_id}").json()
    assert (document["status"], document["passages"]) == ("done", 2)
    assert (document["title"], document["language"]) == ("Contract page", "en")


def test_the_same_content_is_unchanged_and_other_content_is_not(http, document_id):
    ended(http, send(http, document_id)["job_id"])
    assert send(http, document_id)["unchanged"] is True
    other = send(http, document_id, PAGE + "\n## Another\n\nMore.\n")
    assert other["unchanged"] is False
    assert ended(http, other["job_id"])["passages"] == 3


def test_a_document_can_be_deleted(http, document_id):
    ended(http, send(http, document_id)["job_id"])
    answer = http.delete(f"/v1/documents/{document_id}")
    assert answer.status_code == 202
    assert ended(http, answer.json()["job_id"])["status"] == "done"
    assert http.get(f"/v1/documents/{document_id}").status_code == 404


def test_a_file_is_accepted_as_multipart(http, document_id):
    answer = http.post(
        "/v1/documents",
        files={"file": ("page.md", PAGE.encode(), "text/markdown")},
        data={"document_id": document_id, "tags": "contract, test", "language": "en"},
    )
    assert answer.status_code == 202
    assert ended(http, answer.json()["job_id"])["status"] == "done"
    assert http.get(f"/v1/documents/{document_id}").json()["tags"] == ["contract", "test"]


def test_a_bad_file_fails_alone_and_says_why(http, document_id):
    files = {"file": ("page.pdf", b"this is no PDF", "application/pdf")}
    answer = http.post("/v1/documents", files=files, data={"document_id": document_id})
    assert answer.status_code == 202
    job = ended(http, answer.json()["job_id"])
    assert job["status"] == "failed"
    assert "PDF" in job["error"]


def test_progress_is_told_as_events(http, document_id):
    sent = send(http, document_id)
    with http.stream("GET", f"/v1/jobs/{sent['job_id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        names = [line[7:] for line in answer.iter_lines() if line.startswith("event: ")]
    assert names[-1] == "done"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "content"),
        ({"content": ""}, "content"),
        ({"content": ["x"]}, "content"),
        ({"content": "x", "media_type": "image/png"}, "media_type"),
        ({"content": "x", "document_id": "../x"}, "document_id"),
        ({"content": "x", "unknown": 1}, "unknown"),
    ],
)
def test_bad_input_is_a_problem_that_names_the_field(http, body, named):
    answer = http.post("/v1/documents", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert named in answer.text


def test_what_is_not_there_is_404(http):
    assert http.get("/v1/jobs/none").status_code == 404
    assert http.get("/v1/documents/contract/none").status_code == 404
    assert http.delete("/v1/documents/contract/none").status_code == 404
