"""A language model that follows a script: an OpenAI-compatible server that quotes its first source.

    python tests/faults/llm.py --host 127.0.0.1 --port 0

A real model writes 20 tokens a second on two cores, so under load nothing else would be measured.
What is said of the services around it holds for any model. It is a program of its own, for the
processes and as a container, so that what it does delays no measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp.web as web
import orjson

_SOURCES = re.compile(r"<sources>\n(.*)\n</sources>", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """One that runs at `url`; every call of these asks it over HTTP."""

    url: str

    def follow(
        self, *, pause: float = 0.0, between: float = 0.0, dies_after: int | None = None
    ) -> None:
        """From the next answer on. `pause`: seconds before the first word; `between`: seconds
        between words; `dies_after`: words after which the connection breaks, None for a whole
        answer."""
        script = {"pause": pause, "between": between, "dies_after": dies_after}
        self._ask("PUT", json.dumps(script).encode())

    @property
    def calls(self) -> int:
        return int(self._ask()["calls"])

    @property
    def left_at(self) -> list[float]:
        """When callers left before the end, as `time.monotonic()` of this machine says."""
        return list(self._ask()["left_at"])

    def _ask(self, method: str = "GET", body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/script", body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.loads(answer.read()))


@contextmanager
def scripted_model() -> Iterator[ScriptedModel]:
    command = [sys.executable, __file__, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield ScriptedModel(process.stdout.readline().strip())
        finally:
            process.terminate()


@dataclass(slots=True)
class _Server:
    pause: float = 0.0
    between: float = 0.0
    dies_after: int | None = None
    calls: int = 0
    left_at: list[float] = field(default_factory=list)

    async def complete(self, request: web.Request) -> web.StreamResponse:
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

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def script(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            script = await request.json()
            self.pause, self.between = script["pause"], script["between"]
            self.dies_after = script["dies_after"]
        return web.json_response({"calls": self.calls, "left_at": self.left_at})

    async def serve(self, host: str, port: int) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_route("*", "/v1/script", self.script)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        print(f"http://{host}:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    asyncio.run(_Server().serve(chosen.host, chosen.port))
