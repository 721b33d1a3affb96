"""The routes under /v1. Each checks its body, asks one service, and hands the answer back."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import ValidationError
from starlette.responses import Response, StreamingResponse

from services.chassis import (
    BadAnswer,
    CallFailed,
    Deadline,
    DeadlineExceeded,
    Problem,
    ServiceClient,
    Unavailable,
    current,
    get_logger,
)
from services.chassis.problems import validation_problem
from services.chassis.sse import MEDIA_TYPE

from . import chat
from .domain import NoQuestion, index_text, question_and_history, reordered
from .schemas import (
    Accepted,
    Answer,
    AnswerRequest,
    ChatCompletion,
    ChatRequest,
    Conversation,
    Document,
    DocumentList,
    DocumentRequest,
    FeedbackAccepted,
    FeedbackRequest,
    Job,
    Model,
    Models,
    SearchRequest,
    SearchResponse,
)
from .settings import Settings
from .upstream import EventResponse, call, inner_path, open_stream, passed_on, problem_of, upload

_EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {}}}}
_RERANKED_AT_LEAST = 20
"""Reranking fewer candidates than the answer pipeline does would give another order."""

_FORM = DocumentRequest.model_json_schema()
del _FORM["properties"]["content"], _FORM["properties"]["media_type"]
_FORM["properties"]["file"] = {"type": "string", "format": "binary", "description": "the file"}
_FORM["properties"]["tags"] = {"type": "string", "description": "tags, separated by commas"}
_FORM["required"] = ["file"]
_DOCUMENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": DocumentRequest.model_json_schema()},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
DocumentPath = Annotated[str, Path(max_length=200, pattern=r"^[A-Za-z0-9._/-]+$")]


def build_router(settings: Settings) -> APIRouter:
    router = APIRouter()
    _add_answers(router)
    _add_chat(router)
    _add_search(router)
    _add_documents(router, settings)
    _add_feedback(router)
    return router


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _add_answers(router: APIRouter) -> None:
    @router.post(
        "/answer",
        response_model=Answer,
        responses=_EVENTS,
        tags=["answers"],
        summary="Answer a question from the documents",
    )
    async def answer(body: AnswerRequest, request: Request) -> Response:
        """As JSON, or as server-sent events with `stream: true` or `Accept: text/event-stream`:
        `stage`, `sources`, `token` (a draft), then `answer` (checked) or `error` (a problem)."""
        client: ServiceClient = request.app.state.orchestrator
        question = body.model_dump(exclude_none=True, exclude={"stream"})
        if body.stream or MEDIA_TYPE in request.headers.get("accept", ""):
            events = client.stream("/v1/answer", question | {"stream": True})
            return EventResponse(passed_on(await open_stream(request, events)))
        return _json(await call(request, client.post("/v1/answer", question)))

    @router.get(
        "/conversations/{conversation_id}",
        response_model=Conversation,
        tags=["answers"],
        summary="The turns of a conversation",
    )
    async def conversation(conversation_id: Id, request: Request) -> Response:
        client: ServiceClient = request.app.state.orchestrator
        path = inner_path("/v1/conversations", conversation_id)
        return _json(await call(request, client.get(path)))

    @router.delete(
        "/conversations/{conversation_id}",
        status_code=204,
        tags=["answers"],
        summary="Forget a conversation",
    )
    async def forget(conversation_id: Id, request: Request) -> None:
        client: ServiceClient = request.app.state.orchestrator
        path = inner_path("/v1/conversations", conversation_id)
        await call(request, client.request("DELETE", path))


def _add_chat(router: APIRouter) -> None:
    @router.post(
        "/chat/completions",
        response_model=ChatCompletion,
        responses=_EVENTS,
        tags=["OpenAI-compatible"],
        summary="The whole pipeline in OpenAI's shape",
    )
    async def complete(body: ChatRequest, request: Request) -> Response:
        """The last user message is the question, earlier user messages are its history. System
        and assistant messages are not used. The field `rag` holds the whole answer: citations,
        sources, groundedness, timings."""
        _model_or_404(body.model)
        try:
            question, history = question_and_history([(m.role, m.text) for m in body.messages])
        except NoQuestion as error:
            raise validation_problem([{"loc": (error.field,), "msg": str(error)}]) from None
        asked = body.model_dump(include={"language", "filter", "top_k"}, exclude_none=True)
        asked |= {"question": question, "history": history}
        client: ServiceClient = request.app.state.orchestrator
        created = int(time.time())
        if not body.stream:
            answer = await call(request, client.post("/v1/answer", asked))
            return _json(chat.completion(answer, body.model, created))
        events = await open_stream(request, client.stream("/v1/answer", asked | {"stream": True}))
        options = body.stream_options
        return EventResponse(
            chat.chunks(
                events,
                body.model,
                created,
                include_usage=options is not None and options.include_usage,
            )
        )

    @router.get("/models", tags=["OpenAI-compatible"], summary="The model names of chat")
    async def models() -> Models:
        return Models(object="list", data=[Model(**chat.model(name)) for name in chat.MODELS])

    @router.get("/models/{name}", tags=["OpenAI-compatible"], summary="One model")
    async def one_model(name: str) -> Model:
        return Model(**chat.model(_model_or_404(name)))


def _model_or_404(name: str) -> str:
    if name not in chat.MODELS:
        raise Problem(
            404,
            "model-not-found",
            f"model: there is no such model here; use one of {', '.join(chat.MODELS)}.",
            errors=[{"field": "model", "problem": "unknown model"}],
        )
    return name


def _add_search(router: APIRouter) -> None:
    @router.post(
        "/search",
        response_model=SearchResponse,
        tags=["search"],
        summary="Passages by meaning and keyword",
    )
    async def search(body: SearchRequest, request: Request) -> Response:
        wanted = max(body.top_k, _RERANKED_AT_LEAST) if body.rerank else body.top_k
        question = body.model_dump(exclude_none=True, exclude={"rerank"}) | {"top_k": wanted}
        client: ServiceClient = request.app.state.hybrid
        found = await call(request, client.post("/v1/search", question))
        found["reranked"] = body.rerank and await _rerank(request, body, found)
        found["hits"] = found["hits"][: body.top_k]
        return _json(found)


async def _rerank(request: Request, body: SearchRequest, found: dict[str, Any]) -> bool:
    """Put `found` in the reranker's order; False, and named as degraded, when it is gone."""
    client: ServiceClient | None = request.app.state.reranking
    hits = found["hits"]
    if client is None or not hits:
        found["degraded"] += ["reranking"] if client is None else []
        return False
    started = time.perf_counter()
    texts = [index_text(hit["passage"]) for hit in hits]
    try:
        ranked = await call(
            request, client.post("/v1/rerank", {"query": body.query, "documents": texts})
        )
    except Problem:  # the fused order is still a good answer
        found["degraded"].append("reranking")
        return False
    finally:
        found["timings_ms"]["reranking"] = round((time.perf_counter() - started) * 1000, 2)
    found["hits"] = reordered(hits, ranked["results"], body.top_k)
    if not ranked["meta"].get("complete", True):
        found["degraded"].append("reranking")
    return True


def _add_documents(router: APIRouter, settings: Settings) -> None:
    @router.post(
        "/documents",
        response_model=Accepted,
        status_code=202,
        tags=["documents"],
        summary="Add or replace a document",
        openapi_extra=_DOCUMENT_BODY,
    )
    async def add(request: Request) -> Response:
        """A file as multipart/form-data, or text as JSON. Answers at once with a job to watch."""
        client: ServiceClient = request.app.state.ingestion
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("multipart/form-data", "application/json"):
            raise Problem(
                415,
                "unsupported-media-type",
                "content-type: send a file as multipart/form-data, or text as application/json.",
            )
        length = request.headers.get("content-length", "")
        small = length.isdigit() and int(length) <= settings.max_json_bytes
        if kind == "application/json" and small:
            # What is large is checked while ingestion reads it: here it would fill the memory.
            document = _document(await request.body())
            return _json(await call(request, client.post("/v1/documents", document)), 202)
        current().deadline = Deadline(settings.upload_deadline)
        accepted = await upload(request, client, "/v1/documents", timeout=settings.upload_deadline)
        return _json(accepted, 202)

    @router.get(
        "/documents", response_model=DocumentList, tags=["documents"], summary="List the documents"
    )
    async def documents(
        request: Request,
        after: Annotated[
            str | None,
            Query(max_length=200, pattern=r"^[A-Za-z0-9._/-]+$", description="ids after this one"),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="documents in a page")] = 100,
    ) -> Response:
        client: ServiceClient = request.app.state.ingestion
        more = f"&after={after}" if after else ""
        return _json(await call(request, client.get(f"/v1/documents?limit={limit}{more}")))

    @router.get(
        "/documents/{document_id:path}",
        response_model=Document,
        tags=["documents"],
        summary="One document",
    )
    async def document(document_id: DocumentPath, request: Request) -> Response:
        client: ServiceClient = request.app.state.ingestion
        path = inner_path("/v1/documents", document_id)
        return _json(await call(request, client.get(path)))

    @router.delete(
        "/documents/{document_id:path}",
        response_model=Accepted,
        response_model_exclude={"unchanged"},
        status_code=202,
        tags=["documents"],
        summary="Delete a document everywhere",
    )
    async def remove(document_id: DocumentPath, request: Request) -> Response:
        client: ServiceClient = request.app.state.ingestion
        path = inner_path("/v1/documents", document_id)
        return _json(await call(request, client.request("DELETE", path)), 202)

    @router.get("/jobs/{job_id}", response_model=Job, tags=["documents"], summary="How a job goes")
    async def job(job_id: Id, request: Request) -> Response:
        client: ServiceClient = request.app.state.ingestion
        return _json(await call(request, client.get(inner_path("/v1/jobs", job_id))))

    @router.get(
        "/jobs/{job_id}/events",
        response_class=StreamingResponse,
        responses=_EVENTS,
        tags=["documents"],
        summary="A job's progress as server-sent events",
    )
    async def job_events(job_id: Id, request: Request) -> Response:
        """`progress` with the job each time it changes, then `done` or `failed`. The stream also
        ends with the request's time budget: read the job and ask again."""
        client: ServiceClient = request.app.state.ingestion
        events = client.stream(inner_path("/v1/jobs", job_id) + "/events", method="GET")
        return EventResponse(passed_on(await open_stream(request, events)))


def _document(raw: bytes) -> dict[str, Any]:
    try:
        return DocumentRequest.model_validate_json(raw).model_dump(exclude_none=True)
    except ValidationError as error:
        raise validation_problem(error.errors()) from None


def _add_feedback(router: APIRouter) -> None:
    @router.post(
        "/feedback",
        response_model=FeedbackAccepted,
        status_code=201,
        responses={202: {"model": FeedbackAccepted, "description": "Kept until it can be stored."}},
        tags=["feedback"],
        summary="Say what was good or bad about an answer",
    )
    async def give(
        body: FeedbackRequest,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(pattern=r"^[A-Za-z0-9._:-]{1,100}$", description="repeats are stored once"),
        ] = None,
    ) -> Response:
        client: ServiceClient = request.app.state.feedback
        # The same key on both ways in: when the answer of the first was lost, the second is known
        # to be a repeat.
        key = idempotency_key or uuid.uuid4().hex
        feedback = body.model_dump(exclude_none=True)
        try:
            stored = await client.request(
                "POST", "/v1/feedback", feedback, headers={"idempotency-key": key}
            )
        except (Unavailable, DeadlineExceeded, BadAnswer) as error:
            get_logger().warning("feedback_queued", reason=error.reason)
        except CallFailed as error:
            raise problem_of(error) from error
        else:
            return _json(stored, 201)
        outbox = request.app.state.outbox
        kept = await asyncio.wrap_future(
            outbox.append("feedback.given", feedback | {"idempotency_key": key}, event_id=key)
        )
        if not kept:
            raise Problem(
                503,
                "feedback-unavailable",
                "Feedback can not be stored right now, not even for later. Try again shortly.",
                headers={"retry-after": "5"},
            )
        return _json({"id": key, "duplicate": False, "queued": True}, 202)
