"""A language model that follows a script: an OpenAI-compatible server that quotes its first source.

A real model writes 20 tokens a second on two cores, so under load nothing else would be measured.
What is said of the services around it holds for any model.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp.web as web
import orjson

_SOURCES = re.compile(r"<sources>\n(.*)\n</sources>", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s")


@dataclass(slots=True)
class ScriptedModel:
    """`pause`: seconds before the first word; `between`: seconds between words.

    `dies_after`: words after which the connection breaks; None for a whole answer.
    `left_at`: when a caller left before the end, as `time.monotonic()` says.
    """

    pause: float = 0.0
    between: float = 0.0
    dies_after: int | None = None
    calls: int = 0
    left_at: list[float] = field(default_factory=list)
    url: str = ""

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        body = await request.json()
        words = _quote(body["messages"][-1]["content"]).split(" ")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        try:
            await asyncio.sleep(self.pause)
            await response.prepare(request)
            for n, word in enumerate(words):
                if n == self.dies_after:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                await response.write(_chunk({"content": word if n == 0 else " " + word}))
                if self.between:
                    await asyncio.sleep(self.between)
            await response.write(_chunk({}, "stop") + b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.left_at.append(time.monotonic())
            raise
        return response

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{port}/v1"
        started.set()
        await stop.wait()
        await runner.cleanup()


@contextmanager
def scripted_model() -> Iterator[ScriptedModel]:
    """One in a thread of its own: it lives as long as the run, and a test's event loop does not."""
    model = ScriptedModel()
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(model.serve(started, stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield model
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def _quote(prompt: str) -> str:
    """The first sentence of the first source, with its citation."""
    sources = _SOURCES.search(prompt)
    if sources is None:
        return "Nothing."
    text = sources[1].removeprefix("[1]").strip().partition("\n")[0]
    return _SENTENCE.split(text)[0] + " [1]"


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + orjson.dumps({"model": "scripted", "choices": [choice]}) + b"\n\n"
