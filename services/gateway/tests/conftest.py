"""One HTTP server that plays every service behind the gateway, and a gateway in front of it."""

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.chassis.testing import running
from services.gateway.api import create_app
from services.gateway.settings import Settings

SOURCE = {
    "number": 1,
    "id": "en/circuit-breaker#opening",
    "document": "en/circuit-breaker",
    "title": "Circuit breakers",
    "heading": "Opening",
    "text": "It opens after five failures.",
}
ANSWER = {
    "id": "r-1",
    "conversation_id": "c" * 32,
    "question": "When does it open?",
    "language": "en",
    "answer": "After five failures [1].",
    "kind": "generated",
    "citations": [SOURCE],
    "sources": [SOURCE | {"language": "en", "passages": [SOURCE["id"]]}],
    "groundedness": 0.9,
    "refused": False,
    "degraded": [],
    "suggestion": None,
    "intent": "question",
    "decisions": [],
    "timings": [{"stage": "generation", "start_ms": 1.0, "ms": 2.0, "status": "ok"}],
    "first_token_ms": 1.5,
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
JOB = {
    "id": "j1",
    "kind": "index",
    "status": "running",
    "document_id": "notes",
    "progress": 0.5,
    "passages": 3,
    "error": None,
    "superseded": False,
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}


def hit(name, score):
    return {
        "id": name,
        "score": score,
        "provenance": {"sparse": {"rank": 1, "score": score}},
        "passage": {
            "id": name,
            "document": name,
            "title": name.upper(),
            "heading": "",
            "position": 0,
            "language": "en",
            "tags": [],
            "text": f"text of {name}",
        },
    }


class Behind:
    """The services behind. `problems` maps a path to the (status, document) it answers with."""

    def __init__(self):
        self.asked, self.headers, self.problems = {}, {}, {}
        self.hang = set()
        self.cancelled = asyncio.Event()
        self.pause = 0.0
        self.tokens = ["After ", "five failures."]
        self.error_event = None
        self.written = 0
        app = web.Application(client_max_size=100_000_000)
        app.router.add_post("/v1/answer", self.answer)
        app.router.add_post("/v1/search", self.search)
        app.router.add_post("/v1/rerank", self.rerank)
        app.router.add_post("/v1/documents", self.add)
        app.router.add_get("/v1/jobs/j1/events", self.job_events)
        app.router.add_route("*", "/{path:.*}", self.other)
        self.server = TestServer(app, handler_cancellation=True)

    @property
    def url(self):
        return str(self.server.make_url("")).rstrip("/")

    async def _enter(self, request, read=True):
        path = request.path
        self.headers[path] = dict(request.headers)
        if read and request.can_read_body:
            self.asked[path] = await request.json()
        if path in self.hang:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if path in self.problems:
            status, document = self.problems[path]
            raise _Refusal(status, document)

    async def answer(self, request):
        try:
            await self._enter(request)
        except _Refusal as refusal:
            return refusal.response()
        if not self.asked["/v1/answer"].get("stream"):
            return web.json_response(ANSWER | {"id": request.headers["x-request-id"]})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            stage = {"stage": "hybrid_search", "status": "ok", "start_ms": 0, "ms": 1}
            await self._event(response, "stage", stage)
            for token in self.tokens:
                await asyncio.sleep(self.pause)
                await self._event(response, "token", {"text": token})
            if self.error_event:
                await self._event(response, "error", self.error_event)
            else:
                await self._event(response, "answer", ANSWER)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.set()
            raise
        return response

    async def _event(self, response, name, data):
        await response.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        self.written += 1

    async def search(self, request):
        try:
            await self._enter(request)
        except _Refusal as refusal:
            return refusal.response()
        hits = [hit("a", 0.3), hit("b", 0.2), hit("c", 0.1)]
        return web.json_response({"hits": hits, "degraded": [], "timings_ms": {"sparse": 1.0}})

    async def rerank(self, request):
        try:
            await self._enter(request)
        except _Refusal as refusal:
            return refusal.response()
        results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.4}]
        return web.json_response({"results": results, "meta": {"complete": True}})

    async def add(self, request):
        try:
            await self._enter(request, read=False)
            self.asked["/v1/documents"] = await request.read()
        except _Refusal as refusal:
            return refusal.response()
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.set()
            raise
        return web.json_response(
            {"job_id": "j1", "document_id": "notes", "unchanged": False}, status=202
        )

    async def job_events(self, request):
        await self._enter(request)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await self._event(response, "progress", JOB)
        await self._event(response, "done", JOB | {"status": "done", "progress": 1.0})
        return response

    async def other(self, request):
        try:
            await self._enter(request)
        except _Refusal as refusal:
            return refusal.response()
        if request.path == "/v1/feedback":
            return web.json_response({"id": "f1", "duplicate": False}, status=201)
        if request.path == "/v1/jobs/j1":
            return web.json_response(JOB)
        if request.method == "DELETE" and request.path.startswith("/v1/documents/"):
            return web.json_response({"job_id": "j2", "document_id": request.path[14:]}, status=202)
        if request.method == "DELETE":
            return web.Response(status=204)
        return web.json_response({"path": request.path_qs})


class _Refusal(Exception):
    def __init__(self, status, document):
        super().__init__()
        self.status, self.document = status, document

    def response(self):
        return web.json_response(
            self.document, status=self.status, content_type="application/problem+json"
        )


@pytest.fixture
async def behind():
    behind = Behind()
    async with behind.server:
        yield behind


@pytest.fixture
def make_settings(behind, tmp_path):
    def make(**more):
        urls = {
            f"{name}_url": behind.url
            for name in ("orchestrator", "hybrid", "reranking", "ingestion", "feedback")
        }
        return Settings(
            **(
                urls
                | {
                    "data_dir": tmp_path,
                    "allowed_hosts": ["service", "127.0.0.1"],
                    "broker_url": "nats://127.0.0.1:9",
                }
                | more
            )
        )

    return make


@pytest.fixture
async def client(make_settings):
    async with running(create_app(make_settings())) as client:
        yield client
