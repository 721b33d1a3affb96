"""The HTTP face of ingestion: accept documents, keep them safe, tell how their jobs go."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from services.chassis import Problem, create_service, current, encode_event, sse
from services.chassis.broker import EVENTS, Broker
from services.chassis.database import once_there
from services.chassis.problems import validation_problem

from .domain import slug
from .parsing import MEDIA_TYPES, media_type_of
from .relay import JOBS, Relay
from .schemas import (
    AcceptedResponse,
    DeleteAcceptedResponse,
    Document,
    DocumentFields,
    DocumentIn,
    DocumentList,
    Job,
)
from .settings import Settings
from .store import FINISHED, DocumentRow, JobRow, Store, Upload

T = TypeVar("T")
_FORM = DocumentFields.model_json_schema()
_FORM["properties"]["file"] = {"type": "string", "format": "binary", "description": "the file"}
_FORM["properties"]["tags"] = {"type": "string", "description": "tags, separated by commas"}
_FORM["required"] = ["file"]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": DocumentIn.model_json_schema()},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        writer, readers = ThreadPoolExecutor(1), ThreadPoolExecutor(4)
        store = await once_there(
            lambda: Store(settings.sqlalchemy_url), app.state.readiness.set_missing
        )
        broker = Broker(settings.broker_url, client="ingestion", streams=(JOBS, EVENTS))
        broker.start()
        relay = Relay(store, broker, writer, retention=settings.job_retention_days * 86_400)
        task = asyncio.create_task(relay.run(), name="relay")
        app.state.store, app.state.relay = store, relay
        app.state.writer, app.state.readers = writer, readers
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await broker.stop()
        for pool in (writer, readers):
            await asyncio.to_thread(pool.shutdown)
        store.close()

    return create_service(
        settings,
        title="ingestion",
        description="Takes documents in: accepts and keeps them; its worker indexes them.",
        router=_router(settings),
        resources=resources,
    )


def _router(settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/documents",
        status_code=202,
        response_model=AcceptedResponse,
        summary="Add or replace a document",
        openapi_extra=_BODY,
    )
    async def add(request: Request) -> Response:
        """Answers once the document is on disk; the job is then certain to be done."""
        upload, force = await _upload(request)
        state = request.app.state
        accepted = await _in(
            state.writer,
            lambda: state.store.accept(
                upload, settings.pipeline_version, _trace_headers(), force=force
            ),
        )
        state.relay.wake()
        return Response(
            orjson.dumps(
                {
                    "job_id": accepted.job_id,
                    "document_id": upload.document_id,
                    "unchanged": accepted.unchanged,
                }
            ),
            202,
            {"location": f"/v1/jobs/{accepted.job_id}"},
            "application/json",
        )

    @router.get("/documents", summary="List the documents")
    async def documents(
        request: Request,
        after: Annotated[
            str | None, Query(max_length=200, description="ids after this one")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="documents in a page")] = 100,
    ) -> DocumentList:
        state = request.app.state
        rows, total = await _in(state.readers, lambda: state.store.documents(after, limit))
        found = [_document(row, job) for row, job in rows]
        last = found[-1].id if len(found) == limit else None
        return DocumentList(documents=found, total=total, next=last)

    @router.get("/documents/{document_id:path}", summary="One document")
    async def document(document_id: str, request: Request) -> Document:
        state = request.app.state
        found = await _in(state.readers, lambda: state.store.document(document_id))
        if found is None:
            raise _no_document()
        return _document(*found)

    @router.delete(
        "/documents/{document_id:path}", status_code=202, summary="Delete a document everywhere"
    )
    async def remove(document_id: str, request: Request) -> DeleteAcceptedResponse:
        state = request.app.state
        job_id = await _in(
            state.writer, lambda: state.store.request_delete(document_id, _trace_headers())
        )
        if job_id is None:
            raise _no_document()
        state.relay.wake()
        return DeleteAcceptedResponse(job_id=job_id, document_id=document_id)

    @router.get("/jobs/{job_id}", summary="How a job goes")
    async def job(job_id: str, request: Request) -> Job:
        return await _find_job(request, job_id)

    @router.get(
        "/jobs/{job_id}/events",
        summary="A job's progress as server-sent events",
        response_class=StreamingResponse,
        responses={200: {"content": {sse.MEDIA_TYPE: {}}}},
    )
    async def job_events(job_id: str, request: Request) -> StreamingResponse:
        """`progress` with the job each time it changes; the last one is `done` or `failed`.

        The stream ends with the request's deadline too: read the job and ask again.
        """
        first = await _find_job(request, job_id)
        deadline = current().deadline

        async def events() -> AsyncIterator[bytes]:
            known, job, pause = None, first, 0.1
            while True:
                if job != known:
                    known, pause = job, 0.1
                    name = job.status if job.status in FINISHED else "progress"
                    yield encode_event(job.model_dump(), name)
                if job.status in FINISHED or deadline.passed:
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 1.0)
                job = await _find_job(request, job_id)

        return StreamingResponse(events(), headers=sse.HEADERS, media_type=sse.MEDIA_TYPE)

    return router


# -- reading a request --------------------------------------------------------------------


async def _upload(request: Request) -> tuple[Upload, bool]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            return await _from_form(request)
        if kind == "application/json":
            return _from_json(await request.body())
    except ValidationError as error:
        raise validation_problem(error.errors()) from None
    raise Problem(
        415,
        "unsupported-media-type",
        "content-type: send application/json with the text, or multipart/form-data with a file.",
    )


def _from_json(raw: bytes) -> tuple[Upload, bool]:
    body = DocumentIn.model_validate_json(raw)
    content = body.content.encode()
    return _made(body, content, body.media_type, None), body.force


async def _from_form(request: Request) -> tuple[Upload, bool]:
    async with request.form(max_files=1, max_fields=20) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(
                422,
                "invalid-field",
                "file: the form has no file in its field `file`.",
                errors=[{"field": "file", "problem": "Field required"}],
            )
        content = await file.read()
        filename = PurePosixPath((file.filename or "").replace("\\", "/")).name[:300] or None
        values: dict[str, Any] = {
            name: value
            for name, value in form.items()
            if name not in ("file", "tags") and value != ""
        }
        tags = [
            tag.strip()
            for value in form.getlist("tags")
            if isinstance(value, str)
            for tag in value.split(",")
            if tag.strip()
        ]
    body = DocumentFields.model_validate(values | ({"tags": tags} if tags else {}))
    if not content:
        raise _unreadable(422, "invalid-field", "file: the file is empty.")
    media_type = media_type_of(file.content_type, filename)
    if media_type is None:
        raise _unreadable(
            415,
            "unsupported-media-type",
            "file: this type is not read here. Send Markdown (.md), text (.txt), HTML (.html), "
            "PDF (.pdf) or DOCX (.docx).",
            accepted=list(MEDIA_TYPES),
        )
    return _made(body, content, media_type, filename), body.force


def _unreadable(status: int, kind: str, detail: str, **extra: Any) -> Problem:
    errors = [{"field": "file", "problem": detail.removeprefix("file: ")}]
    return Problem(status, kind, detail, errors=errors, **extra)


def _made(body: DocumentFields, content: bytes, media_type: str, filename: str | None) -> Upload:
    stem = re.sub(r"\.[A-Za-z0-9]{1,8}$", "", filename or "")
    document_id = (
        body.document_id
        or slug(stem)[:200]
        or slug(body.title or "")[:200]
        or hashlib.sha256(content).hexdigest()[:16]
    )
    return Upload(document_id, content, media_type, filename, body.title, body.language, body.tags)


# -- helpers ------------------------------------------------------------------------------


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


async def _find_job(request: Request, job_id: str) -> Job:
    state = request.app.state
    row: JobRow | None = await _in(state.readers, lambda: state.store.job(job_id))
    if row is None:
        raise Problem(404, "not-found", "There is no job with this id, or it ended long ago.")
    return Job(
        id=row.id,
        kind=row.kind,
        status=row.status,
        document_id=row.document_id,
        progress=row.progress,
        passages=row.passages,
        error=row.error,
        superseded=row.superseded,
        created_at=_when(row.created_at),
        updated_at=_when(row.updated_at),
    )


def _document(row: DocumentRow, job: JobRow | None) -> Document:
    return Document(
        id=row.id,
        status=job.status if job else "done",
        job_id=row.job_id,
        error=job.error if job else None,
        title=row.title,
        language=row.language,
        tags=row.tags or [],
        media_type=row.media_type,
        filename=row.filename,
        size=row.size,
        sha256=row.sha256,
        passages=row.passages,
        models=row.models,
        created_at=_when(row.created_at),
        updated_at=_when(row.updated_at),
        indexed_at=None if row.indexed_at is None else _when(row.indexed_at),
    )


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _no_document() -> Problem:
    return Problem(404, "not-found", "There is no document with this id. GET /v1/documents lists.")


def _trace_headers() -> dict[str, str]:
    sent = current().headers()
    sent.pop("x-deadline-ms")
    return sent
