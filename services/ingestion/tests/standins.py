"""Small HTTP servers that play embedding, dense and sparse retrieval, and reranking.

They keep what they are sent, so that a test can compare both indexes with what should be there.
"""

from __future__ import annotations

import asyncio
import base64
import struct

import aiohttp.web as web
from aiohttp.test_utils import TestServer

MODELS = {"bilingual": "multilingual-e5-small-enpt", "english": "all-MiniLM-L6-v2"}


def vector_of(text: str) -> str:
    """A vector that tells which text it was made from."""
    return base64.b64encode(struct.pack("<2f", len(text), sum(text.encode()) % 1000)).decode()


class Embedding:
    def __init__(self):
        self.calls, self.down, self.refuse, self.seconds = [], False, None, 0.0
        self.served = set(MODELS.values())
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/embeddings", self.embed)
        self.server = TestServer(app)

    async def embed(self, request):
        body = await request.json()
        if self.down:
            return web.json_response({"detail": "model is loading"}, status=503)
        if body["model"] not in self.served:
            problem = {"type": "urn:rag-workshop:problem:unknown-model", "detail": "not served"}
            return web.json_response(problem, status=404)
        if self.refuse and any(self.refuse in text for text in body["input"]):
            return web.json_response({"detail": "this text is refused"}, status=422)
        await asyncio.sleep(self.seconds)
        assert body["input_type"] == "passage"
        assert body["encoding_format"] == "base64"
        self.calls.append((body["model"], len(body["input"])))
        data = [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(body["input"])]
        return web.json_response({"model": body["model"], "data": data})


class Index:
    """Dense or sparse retrieval: passages by id."""

    def __init__(self):
        self.passages, self.status, self.puts, self.log = {}, 200, 0, []
        app = web.Application(client_max_size=2**26)
        app.router.add_put("/v1/passages", self.put)
        app.router.add_delete("/v1/passages", self.delete)
        self.server = TestServer(app)

    async def put(self, request):
        body = await request.json()
        if self.status != 200:
            return web.json_response({"detail": "it is broken"}, status=self.status)
        self.puts += 1
        for passage in body["passages"]:
            self.passages[passage["id"]] = passage
            self.log.append(("put", passage["id"]))
        return web.json_response({"stored": len(body["passages"])})

    async def delete(self, request):
        if self.status != 200:
            return web.json_response({"detail": "it is broken"}, status=self.status)
        before = len(self.passages)
        for document in request.query.getall("document", []):
            self.log.append(("delete document", document))
            self.passages = {id: p for id, p in self.passages.items() if p["document"] != document}
        for id in request.query.getall("id", []):
            self.log.append(("delete", id))
            self.passages.pop(id, None)
        return web.json_response({"deleted": before - len(self.passages)})


class Reranking:
    def __init__(self):
        self.texts, self.status = [], 200
        app = web.Application()
        app.router.add_put("/v1/passages", self.put)
        self.server = TestServer(app)

    async def put(self, request):
        if self.status != 200:
            return web.json_response({"detail": "it does not encode"}, status=self.status)
        self.texts += (await request.json())["texts"]
        return web.json_response({"encoded": 1, "known": 0})


class Backends:
    def __init__(self):
        self.embedding, self.reranking = Embedding(), Reranking()
        self.dense, self.sparse = Index(), Index()
        self.all = (self.embedding, self.dense, self.sparse, self.reranking)

    async def __aenter__(self):
        for part in self.all:
            await part.server.start_server()
        return self

    async def __aexit__(self, *_):
        for part in self.all:
            await part.server.close()

    def urls(self):
        names = ("embedding_url", "dense_url", "sparse_url", "reranking_url")
        return {
            name: str(part.server.make_url("")).rstrip("/")
            for name, part in zip(names, self.all, strict=True)
        }
