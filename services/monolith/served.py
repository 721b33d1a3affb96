"""The script behind HTTP, for the steps of the course at which it still answers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request
from pydantic import Field
from starlette.responses import Response

from services.chassis import ApiModel, Problem, create_service, current, encode_event

from .settings import Settings


class AnswerRequest(ApiModel):
    question: str = Field(min_length=1, max_length=2000, pattern=r"\S", description="the question")
    history: list[str] = Field(default_factory=list, max_length=20, description="earlier ones")
    stream: bool = Field(False, description="one server-sent event in place of a document")


def create_app(settings: Settings) -> FastAPI:
    """One thread: the script does one thing at a time."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        from .split import PartlySplit

        app.state.thread = ThreadPoolExecutor(1, thread_name_prefix="monolith")
        loop = asyncio.get_running_loop()
        app.state.rag = await loop.run_in_executor(app.state.thread, PartlySplit, settings)
        yield
        app.state.thread.shutdown()

    return create_service(
        settings,
        title="monolith",
        description="The RAG script of lesson 01, with the stages that no service has taken out.",
        router=_router(),
        resources=resources,
    )


def _router() -> APIRouter:
    router = APIRouter()

    @router.post("/answer", summary="Answer a question", response_model=None)
    async def answer(body: AnswerRequest, request: Request) -> Response | dict[str, Any]:
        """The gateway's answer, as far as the script has it."""
        state, loop = request.app.state, asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                state.thread, state.rag.answer, body.question, body.history
            )
        except httpx.HTTPError as error:
            raise Problem(
                503, "unavailable", f"A service that the script asks is gone: {error}"
            ) from error
        document = _document(body.question, found)
        if body.stream:
            return Response(encode_event(document, "answer"), media_type="text/event-stream")
        return document

    return router


def _document(question: str, found: dict[str, Any]) -> dict[str, Any]:
    milliseconds = found["ms"]
    stages = {"retrieval": (0.0, milliseconds["retrieval"])}
    stages["generation"] = (milliseconds["retrieval"], milliseconds["generation"])
    return {
        "id": current().request_id,
        "conversation_id": uuid.uuid4().hex,
        "question": question,
        "kind": "refusal" if found["refused"] else "generated",
        "degraded": [],
        "timings": [
            {"stage": stage, "start_ms": start, "ms": length, "status": "ok"}
            for stage, (start, length) in stages.items()
        ],
        **{key: value for key, value in found.items() if key != "ms"},
    }
