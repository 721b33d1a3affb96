"""`python -m services.embedding.inside PORT --model FOLDER`: an application with the model inside.

With `--embedding URL` in place of `--model` it has no model, and asks the service. Lesson 02 runs
both and compares their memory, and how long a light request waits beside a heavy one.
"""

from __future__ import annotations

import argparse

import aiohttp
import uvicorn
from fastapi import FastAPI

from .domain import Encoder


def create_app(model: str | None, embedding: str | None) -> FastAPI:
    """`GET /light` needs no model. The others take texts and answer how many vectors they got."""
    app = FastAPI()
    encoder = Encoder.load(model) if model else None

    @app.get("/light")
    async def light() -> str:
        return "ok"

    if encoder is not None:

        @app.post("/heavy")
        async def heavy(texts: list[str]) -> int:
            """On the event loop, as it is often written."""
            return len(encoder.encode(texts))

        @app.post("/heavy-in-a-thread")
        def heavy_in_a_thread(texts: list[str]) -> int:
            """Without `async`, FastAPI runs it in a thread."""
            return len(encoder.encode(texts))

    else:

        @app.post("/heavy")
        async def ask(texts: list[str]) -> int:
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{embedding}/v1/embeddings", json={"input": texts}) as answer,
            ):
                return len((await answer.json())["data"])

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--model", help="folder of a model")
    parser.add_argument("--embedding", help="base URL of the service")
    given = parser.parse_args()
    if bool(given.model) == bool(given.embedding):
        parser.error("give one of --model and --embedding")
    app = create_app(given.model, given.embedding)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="error")


if __name__ == "__main__":
    main()
