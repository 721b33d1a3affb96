"""API and worker in one process, a real broker between them, stand-ins for the other services."""

import asyncio
import base64
import struct

import pytest

from services.chassis import parse_events
from services.chassis.testing import running
from services.ingestion.api import create_app
from services.ingestion.domain import Passage, index_text
from services.ingestion.worker import running_worker

on_both_databases = pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)
PAGE = "# Breakers\n\nWhat they are.\n\n## When it opens\n\nAfter five failures.\n"


async def ended(client, job_id, seconds=20.0):
    for _ in range(int(seconds / 0.05)):
        job = (await client.get(f"/v1/jobs/{job_id}")).json()
        if job["status"] in ("done", "failed"):
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job did not end: {job}")


async def send(client, content=PAGE, **fields):
    body = {"document_id": "en/breaker", "language": "en", "content": content} | fields
    answer = await client.post("/v1/documents", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def until(condition, seconds=10.0):
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


@on_both_databases
async def test_a_document_reaches_both_indexes(client, worker, backends):
    sent = await send(client, tags=["resilience"])
    job = await ended(client, sent["job_id"])
    assert (job["status"], job["progress"], job["passages"]) == ("done", 1.0, 2)
    stored = backends.sparse.passages["en/breaker#when-it-opens"]
    assert stored == {
        "id": "en/breaker#when-it-opens",
        "document": "en/breaker",
        "title": "Breakers",
        "heading": "When it opens",
        "position": 1,
        "language": "en",
        "tags": ["resilience"],
        "text": "After five failures.",
    }
    dense = dict(backends.dense.passages["en/breaker#when-it-opens"])
    vectors = dense.pop("vectors")
    assert dense == stored
    text = index_text(Passage(**stored))
    assert struct.unpack("<2f", base64.b64decode(vectors["bilingual"]))[0] == len(text)
    assert set(vectors) == {"bilingual", "english"}
    document = (await client.get("/v1/documents/en/breaker")).json()
    assert (document["status"], document["passages"], document["title"]) == ("done", 2, "Breakers")


async def test_portuguese_gets_no_english_vector(client, worker, backends):
    sent = await send(client, document_id="pt/x", language="pt")
    await ended(client, sent["job_id"])
    assert [set(p["vectors"]) for p in backends.dense.passages.values()] == [{"bilingual"}] * 2


async def test_passages_are_encoded_ahead_for_reranking(client, worker, backends):
    await ended(client, (await send(client))["job_id"])
    await until(lambda: backends.reranking.texts)
    assert backends.reranking.texts[1] == "Breakers — When it opens\nAfter five failures."


@on_both_databases
async def test_a_worker_that_starts_has_encoded_what_the_last_one_had_not(settings, backends):
    backends.reranking.status = 503
    async with running(create_app(settings)) as client, running_worker(settings):
        for name in ("en/gone", "en/kept"):
            await ended(client, (await send(client, document_id=name))["job_id"])
        deleted = await client.delete("/v1/documents/en/gone")
        await ended(client, deleted.json()["job_id"])
    backends.reranking.status = 200
    async with running_worker(settings) as worker:
        await until(lambda: not worker.store.ahead(10))
    assert len(backends.reranking.texts) == 2


async def test_what_reranking_refuses_to_encode_is_left_to_it(client, worker, backends):
    backends.reranking.status = 422
    await ended(client, (await send(client))["job_id"])
    await until(lambda: not worker.store.ahead(10))
    backends.reranking.status = 200
    await ended(client, (await send(client, document_id="en/next"))["job_id"])
    await until(lambda: len(backends.reranking.texts) == 2)


@on_both_databases
async def test_the_same_content_again_is_unchanged(client, worker, backends):
    first = await send(client)
    await ended(client, first["job_id"])
    calls = len(backends.embedding.calls)
    again = await send(client)
    assert again == first | {"unchanged": True}
    assert len(backends.embedding.calls) == calls
    forced = await send(client, force=True)
    assert forced["unchanged"] is False
    assert (await ended(client, forced["job_id"]))["status"] == "done"
    changed = await send(client, tags=["other"])
    assert changed["unchanged"] is False


async def test_a_new_version_leaves_no_stale_passage(client, worker, backends):
    await ended(client, (await send(client))["job_id"])
    new = PAGE.replace("When it opens", "When it closes")
    await ended(client, (await send(client, new))["job_id"])
    for index in (backends.dense, backends.sparse):
        assert set(index.passages) == {"en/breaker", "en/breaker#when-it-closes"}
        stale = index.log.index(("delete", "en/breaker#when-it-opens"))
        fresh = index.log.index(("put", "en/breaker#when-it-closes"))
        assert fresh < stale  # at no moment is neither of them there


@on_both_databases
async def test_delete_removes_it_everywhere(client, worker, backends):
    await ended(client, (await send(client))["job_id"])
    answer = await client.delete("/v1/documents/en/breaker")
    assert answer.status_code == 202
    assert (await ended(client, answer.json()["job_id"]))["status"] == "done"
    assert backends.dense.passages == backends.sparse.passages == {}
    assert (await client.get("/v1/documents/en/breaker")).status_code == 404
    assert (await client.delete("/v1/documents/en/breaker")).status_code == 404
    back = await send(client)
    assert (await ended(client, back["job_id"]))["status"] == "done"
    assert len(backends.sparse.passages) == 2


@on_both_databases
async def test_the_last_of_several_versions_wins(client, worker, backends):
    jobs = []
    for number in range(6):
        content = f"# Version\n\nNumber {number}.\n\n## Part {number}\n\nText {number}.\n"
        jobs.append((await send(client, content))["job_id"])
    for job_id in jobs:
        assert (await ended(client, job_id))["status"] == "done"
    assert set(backends.dense.passages) == {"en/breaker", "en/breaker#part-5"}
    assert set(backends.sparse.passages) == {"en/breaker", "en/breaker#part-5"}


@on_both_databases
async def test_a_job_waits_for_a_service_that_is_gone(client, worker, backends):
    backends.embedding.down = True
    sent = await send(client)
    for _ in range(200):
        job = (await client.get(f"/v1/jobs/{sent['job_id']}")).json()
        if job["error"]:
            break
        await asyncio.sleep(0.02)
    assert "embedding" in job["error"]
    assert job["status"] in ("queued", "running")
    await asyncio.sleep(2.5)  # more tries than `max_deliveries` allows a crashing document
    assert (await client.get(f"/v1/jobs/{sent['job_id']}")).json()["status"] != "failed"
    backends.embedding.down = False
    job = await ended(client, sent["job_id"])
    assert (job["status"], job["error"]) == ("done", None)


async def test_a_refused_document_fails_alone_with_the_reason(client, worker, backends):
    backends.embedding.refuse = "poison"
    jobs = {
        name: (await send(client, f"# {name}\n\nSome {name} text.", document_id=name))["job_id"]
        for name in ("good", "poison", "fine")
    }
    results = {name: await ended(client, job_id) for name, job_id in jobs.items()}
    assert [results[name]["status"] for name in jobs] == ["done", "failed", "done"]
    assert results["poison"]["error"] == "embedding refused it: this text is refused"
    assert set(backends.dense.passages) == {"good", "fine"}


async def test_a_service_that_always_errs_ends_the_job(client, worker, backends):
    backends.dense.status = 500
    job = await ended(client, (await send(client))["job_id"])
    assert job["status"] == "failed"
    assert "5 attempts" in job["error"]
    assert "dense_retrieval" in job["error"]


async def test_without_the_english_model_documents_are_indexed_and_not_unchanged(
    client, worker, backends
):
    backends.embedding.served.remove("all-MiniLM-L6-v2")
    await ended(client, (await send(client))["job_id"])
    assert {frozenset(p["vectors"]) for p in backends.dense.passages.values()} == {
        frozenset({"bilingual"})
    }
    backends.embedding.served.add("all-MiniLM-L6-v2")
    again = await send(client)
    assert again["unchanged"] is False
    await ended(client, again["job_id"])
    assert set(backends.dense.passages["en/breaker"]["vectors"]) == {"bilingual", "english"}


async def test_jobs_wait_for_a_worker_and_survive_this_api(settings, backends):
    """The API alone accepts; it goes away; another process does the job."""
    async with running(create_app(settings)) as client:
        sent = await send(client)
        assert (await client.get(f"/v1/jobs/{sent['job_id']}")).json()["status"] == "queued"
    async with running_worker(settings) as worker:
        await until(lambda: worker.store.job(sent["job_id"]).status == "done")
    assert len(backends.sparse.passages) == 2


async def test_progress_arrives_as_server_sent_events(client, worker):
    sent = await send(client)
    async with client.stream("GET", f"/v1/jobs/{sent['job_id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [event async for event in parse_events(answer.aiter_bytes())]
    assert events[-1].event == "done"
    assert events[-1].json()["passages"] == 2
    progress = [event.json()["progress"] for event in events]
    assert progress == sorted(progress)


async def test_many_documents_share_the_calls_to_embedding(client, worker, backends):
    backends.embedding.seconds = 0.2  # time for others to come and share the next call
    jobs = [
        (await send(client, f"# D{n}\n\nText {n}.", document_id=f"d{n}"))["job_id"]
        for n in range(40)
    ]
    for job_id in jobs:
        assert (await ended(client, job_id))["status"] == "done"
    sizes = [size for model, size in backends.embedding.calls if model.startswith("multi")]
    assert sum(sizes) == 40
    assert max(sizes) > 1
    assert len(backends.sparse.passages) == 40


# -- what is not accepted -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, "content"),
        ({"content": ""}, 422, "content"),
        ({"content": 5}, 422, "content"),
        ({"content": "x", "media_type": "application/pdf"}, 422, "media_type"),
        ({"content": "x", "document_id": "a/../b"}, 422, "document_id"),
        ({"content": "x", "document_id": "a#b"}, 422, "document_id"),
        ({"content": "x", "language": "portuguese"}, 422, "language"),
        ({"content": "x", "tags": ["t" * 101]}, 422, "tags"),
        ({"content": "x", "colour": "red"}, 422, "colour"),
    ],
)
async def test_bad_json_is_refused_by_its_field(client, body, status, named):
    answer = await client.post("/v1/documents", json=body)
    assert answer.status_code == status
    assert named in answer.json()["detail"]


async def test_what_is_no_document_is_refused(client):
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/documents", content=b"{", headers=headers)
    assert answer.status_code == 400
    answer = await client.post("/v1/documents", content=b"x", headers={"content-type": "text/css"})
    assert answer.status_code == 415
    answer = await client.post("/v1/documents", files={"file": ("a.exe", b"MZ", "application/exe")})
    assert answer.status_code == 415
    answer = await client.post("/v1/documents", files={"file": ("a.txt", b"", "text/plain")})
    assert answer.status_code == 422
    answer = await client.post("/v1/documents", files={"other": ("a.txt", b"x", "text/plain")})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "file"
    big = {"file": ("a.txt", b"x" * 34_000_000, "text/plain")}
    assert (await client.post("/v1/documents", files=big)).status_code == 413
    assert (await client.get("/v1/jobs/none")).status_code == 404
    assert (await client.get("/v1/documents")).json() == {
        "documents": [],
        "total": 0,
        "next": None,
    }


async def test_a_file_upload_names_the_document(client, worker, backends):
    answer = await client.post(
        "/v1/documents",
        files={"file": ("Meu Guia.md", PAGE.encode(), "application/octet-stream")},
        data={"tags": "a, b", "language": "pt-BR"},
    )
    assert answer.status_code == 202
    assert answer.json()["document_id"] == "meu-guia"
    await ended(client, answer.json()["job_id"])
    stored = backends.sparse.passages["meu-guia"]
    assert (stored["tags"], stored["language"]) == (["a", "b"], "pt")


@on_both_databases
async def test_documents_are_listed_in_pages(client):
    for n in range(5):
        await send(client, document_id=f"d{n}")
    first = (await client.get("/v1/documents?limit=3")).json()
    assert [d["id"] for d in first["documents"]] == ["d0", "d1", "d2"]
    assert (first["total"], first["next"]) == (5, "d2")
    rest = (await client.get("/v1/documents?limit=3&after=d2")).json()
    assert [d["id"] for d in rest["documents"]] == ["d3", "d4"]
    assert rest["next"] is None
