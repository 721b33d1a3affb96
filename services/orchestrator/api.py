"""The HTTP face of orchestrator: one question in, one answer out, whole or as events."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from services.chassis import (
    Breaker,
    MayCall,
    Problem,
    Record,
    create_service,
    current,
    encode_event,
    get_logger,
    may_call,
    not_to_blame,
    record,
)
from services.chassis.events import Outbox
from services.chassis.problems import internal_problem
from services.chassis.sse import HEADERS, MEDIA_TYPE
from services.chassis.until_gone import UntilGone, send_json

from .conversations import Conversations, Forgotten
from .domain import Extract, extractive_answer
from .pipeline import Clients, Event, Pipeline, Question
from .schemas import Answer, AnswerRequest, Conversation
from .settings import Settings
from .stages import RunStage, run_stage

T = TypeVar("T")


def create_app(
    settings: Settings,
    *,
    run: RunStage = run_stage,
    extract: Extract = extractive_answer,
    may_call: MayCall = may_call,
    record: Record = record,
) -> FastAPI:
    """The service around its core: `run` gives a stage its time, `extract` answers without a model,
    `may_call` and `record` are the decisions of each dependency's breaker."""

    def breaker(service: str) -> Breaker:
        return Breaker(service, ignore=not_to_blame, may_call=may_call, record=record)

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        clients = Clients.connect(settings, breaker)
        app.state.pipeline = Pipeline(settings, clients, run, extract)
        app.state.conversations = Conversations(
            settings.sqlalchemy_url,
            ttl=settings.conversation_ttl,
            timeout=settings.conversation_timeout,
        )
        await app.state.conversations.open()
        app.state.outbox = Outbox(
            settings.home / "outbox.sqlite",
            settings.broker_url,
            settings.name,
            registry=app.state.metrics.registry,
        )
        app.state.outbox.start()
        yield
        await app.state.outbox.aclose()
        await clients.aclose()
        await app.state.conversations.aclose()

    return create_service(
        settings,
        title="orchestrator",
        description="Runs the answer pipeline: order, deadlines, retries and fallbacks.",
        router=_router(settings),
        resources=resources,
    )


def _router(settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/answer",
        response_model=Answer,
        summary="Answer a question from the documents",
        responses={200: {"content": {MEDIA_TYPE: {}}}},
    )
    async def answer(body: AnswerRequest, request: Request) -> Response:
        events = _events(request.app, settings, body)
        if body.stream or MEDIA_TYPE in request.headers.get("accept", ""):
            return StreamingResponse(_encoded(events), media_type=MEDIA_TYPE, headers=HEADERS)
        return UntilGone(lambda send: _whole(events, send))

    @router.get(
        "/conversations/{conversation_id}",
        response_model=Conversation,
        summary="The turns of a conversation",
    )
    async def read(conversation_id: str, request: Request) -> dict[str, Any]:
        store: Conversations = request.app.state.conversations
        turns = await _found(store.turns(conversation_id))
        if not turns:
            raise _no_conversation(conversation_id)
        return {"id": conversation_id, "turns": turns}

    @router.delete(
        "/conversations/{conversation_id}", status_code=204, summary="Forget a conversation"
    )
    async def forget(conversation_id: str, request: Request) -> None:
        store: Conversations = request.app.state.conversations
        if not await _found(store.delete(conversation_id)):
            raise _no_conversation(conversation_id)

    return router


def _no_conversation(conversation_id: str) -> Problem:
    return Problem(
        404, "no-conversation", f"There is no conversation {conversation_id!r}, or it has expired."
    )


async def _found(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except Forgotten as error:
        get_logger().warning("conversations_unavailable", reason=str(error))
        raise Problem(
            503,
            "conversations-unavailable",
            "The store of conversations does not answer. Try again in a second.",
            headers={"retry-after": "1"},
        ) from error


async def _events(
    app: FastAPI, settings: Settings, body: AnswerRequest
) -> AsyncGenerator[Event, None]:
    store: Conversations = app.state.conversations
    conversation = body.conversation_id or uuid.uuid4().hex
    history, lost = body.history, []
    if history is None:
        history = []
        if body.conversation_id:
            try:
                history = await store.questions(conversation, settings.history_turns)
            except Forgotten as error:
                lost.append(str(error))
    question = Question(
        text=body.question,
        language=body.language,
        history=history[-settings.history_turns :] if settings.history_turns else [],
        filter=body.filter.model_dump(exclude_none=True),
        top_k=body.top_k or settings.context_passages,
    )
    pipeline: Pipeline = app.state.pipeline
    async with aclosing(pipeline.run(question)) as events:
        async for name, data in events:
            if name == "answer":
                named: dict[str, Any] = {
                    "id": current().request_id,
                    "conversation_id": conversation,
                }
                data = named | data
                try:
                    await store.add(conversation, body.question, data["answer"])
                except Forgotten as error:
                    lost.append(str(error))
                if lost:
                    get_logger().warning("conversations_unavailable", reason=lost[0])
                    data["degraded"] = [*data["degraded"], "conversations"]
                app.state.outbox.append("answer.completed", _event(data))
            yield name, data


def _event(answer: dict[str, Any]) -> dict[str, Any]:
    """What is told of an answer to whoever listens: how it was made, and the question, which the
    reports show for the answers that went badly."""
    names = (
        "question",
        "language",
        "intent",
        "kind",
        "degraded",
        "timings",
        "groundedness",
        "refused",
        "first_token_ms",
    )
    passages = [name for source in answer["sources"] for name in source["passages"]]
    return {name: answer[name] for name in names} | {"passages": passages}


async def _whole(events: AsyncGenerator[Event, None], send: Send) -> None:
    """The answer alone, as JSON. Raises Problem when there is none."""
    async with aclosing(events):
        async for name, data in events:
            if name == "answer":
                await send_json(send, data)


async def _encoded(events: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    """Events on the wire. What fails after the first byte is an `error` event, never a silence."""
    try:
        async with aclosing(events):
            async for name, data in events:
                yield encode_event(data, name)
    except Problem as problem:
        yield encode_event(problem.document(current().request_id), "error")
    except Exception as error:  # noqa: BLE001 - the status line is gone; an event must say it
        yield encode_event(internal_problem(error).document(current().request_id), "error")
