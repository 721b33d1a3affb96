"""Talk to the running system as any client would: over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from services.chassis import CallFailed, Rejected, RequestContext, ServiceClient, use_context

from .errors import WorkshopError
from .paths import ROOT

MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}
"""What ingestion reads, by file name ending."""

_JOB_TIMEOUT = 600.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Document:
    """A file to ingest. Without `id`, ingestion makes one."""

    path: Path
    id: str | None = None
    language: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class IngestReport:
    """`passages` counts those of new documents only; `failed` holds (name, reason)."""

    documents: int = 0
    unchanged: int = 0
    passages: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def _key() -> dict[str, str]:
    key = os.environ.get("WORKSHOP_API_KEY", "")
    return {"authorization": f"Bearer {key}"} if key else {}


def _explain(error: CallFailed) -> WorkshopError:
    if isinstance(error, Rejected):
        way_out = "Set WORKSHOP_API_KEY to a key of the gateway." if error.status == 401 else ""
        return WorkshopError(f"{error.service} refused: {error.reason}", way_out)
    return WorkshopError(
        f"{error.service} did not answer: {error.reason}.",
        f"See `workshop status` and `workshop logs {error.service}`.",
    )


async def answer_events(
    gateway: str, question: str, *, language: str | None = None, timeout: float = 120.0
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Ask the gateway; (event, data) pairs as they stream: stage, sources, token, answer.

    Raises `WorkshopError` on an `error` event and on every failed call.
    """
    body: dict[str, Any] = {"question": question, "stream": True}
    if language:
        body["language"] = language
    client = ServiceClient("gateway", gateway, timeout=timeout, headers=_key())
    try:
        with use_context(RequestContext.new(timeout)):
            async for event in client.stream("/v1/answer", body):
                data = event.json()
                if not isinstance(data, dict):
                    continue
                if event.event == "error":
                    raise WorkshopError(str(data.get("detail") or data.get("title")))
                yield event.event, data
    except CallFailed as error:
        raise _explain(error) from error
    finally:
        await client.aclose()


async def answer(
    gateway: str, question: str, *, language: str | None = None, timeout: float = 120.0
) -> dict[str, Any]:
    """Ask the gateway and wait for the whole answer document."""
    body = {"question": question} | ({"language": language} if language else {})
    client = ServiceClient("gateway", gateway, timeout=timeout, headers=_key())
    try:
        with use_context(RequestContext.new(timeout)):
            return dict(await client.post("/v1/answer", body))
    except CallFailed as error:
        raise _explain(error) from error
    finally:
        await client.aclose()


async def search(gateway: str, query: str, *, top_k: int, rerank: bool) -> dict[str, Any]:
    client = ServiceClient("gateway", gateway, timeout=30.0, headers=_key())
    try:
        body = {"query": query, "top_k": top_k, "rerank": rerank}
        return dict(await client.post("/v1/search", body))
    except CallFailed as error:
        raise _explain(error) from error
    finally:
        await client.aclose()


def handbook() -> list[Document]:
    """The workshop's own textbook, with document ids `en/slug` and `pt/slug`."""
    return [
        Document(path, f"{language}/{path.stem}", language)
        for language in ("en", "pt")
        for path in sorted((ROOT / "handbook" / language).glob("*.md"))
    ]


def fingerprint(documents: Sequence[Document]) -> str:
    """SHA-256 over ids and contents: changes when any document does."""
    total = hashlib.sha256()
    for document in documents:
        total.update(f"{document.id}\0".encode())
        total.update(hashlib.sha256(document.path.read_bytes()).digest())
    return total.hexdigest()


def find_documents(given: Sequence[Path]) -> list[Document]:
    """Files and the readable files inside folders. Raises `WorkshopError` for what is neither."""
    found: list[Document] = []
    for path in given:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in MEDIA_TYPES]
            found += [Document(p) for p in inside if p.is_file()]
        elif not path.exists():
            raise WorkshopError(f"There is no file {path}.")
        elif path.suffix.lower() not in MEDIA_TYPES:
            raise WorkshopError(
                f"{path.name} is of a kind that ingestion does not read.",
                f"Readable: {' '.join(MEDIA_TYPES)}.",
            )
        else:
            found.append(Document(path))
    if not found:
        raise WorkshopError("No readable file was found.", f"Readable: {' '.join(MEDIA_TYPES)}.")
    return found


async def ingest(
    ingestion: str,
    documents: Sequence[Document],
    progress: Callable[[float, str], None] = lambda done, name: None,
) -> IngestReport:
    """Send every document and wait for its job. A bad file fails alone, with its reason.

    `progress` gets the share done (0..1) and the name of the last finished document, or of one
    that waits and what it waits for. Safe to repeat: ingestion answers `unchanged` for content
    that it has already.
    """
    report = IngestReport()
    places = asyncio.Semaphore(_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=60.0)
    async with aiohttp.ClientSession(ingestion, timeout=timeout, headers=_key()) as session:

        async def one(document: Document) -> None:
            async with places:
                name = document.id or document.path.name
                try:
                    job = await _ingest_one(
                        session,
                        document,
                        lambda why: progress(report.documents / len(documents), f"{name}: {why}"),
                    )
                except WorkshopError as error:
                    report.failed.append((name, error.what))
                else:
                    if job["unchanged"]:
                        report.unchanged += 1
                    else:
                        report.passages += int(job.get("passages") or 0)
                report.documents += 1
                progress(report.documents / len(documents), name)

        await asyncio.gather(*(one(document) for document in documents))
    return report


async def _ingest_one(
    session: aiohttp.ClientSession, document: Document, waits_for: Callable[[str], None]
) -> dict[str, Any]:
    """The finished job. Raises `WorkshopError` with the reason if the document cannot be had."""
    path = document.path
    form = aiohttp.FormData()
    media_type = MEDIA_TYPES[path.suffix.lower()]
    form.add_field("file", path.read_bytes(), filename=path.name, content_type=media_type)
    for name, value in (("document_id", document.id), ("language", document.language)):
        if value:
            form.add_field(name, value)
    for tag in document.tags:
        form.add_field("tags", tag)
    accepted = await _call(session, "POST", "/v1/documents", data=form)
    # `unchanged` may also mean that a job for this very content waits: see that one through.
    end = asyncio.get_running_loop().time() + _JOB_TIMEOUT
    pause = 0.1
    while asyncio.get_running_loop().time() < end:
        job = await _call(session, "GET", f"/v1/jobs/{accepted['job_id']}")
        if job["status"] == "done":
            return {**job, "unchanged": accepted["unchanged"]}
        if job["status"] == "failed":
            raise WorkshopError(str(job.get("error") or "failed without a reason"))
        if job.get("error"):
            waits_for(str(job["error"]))
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 1.0)
    raise WorkshopError(f"not indexed within {_JOB_TIMEOUT:.0f} s")


async def _call(
    session: aiohttp.ClientSession, method: str, path: str, **more: Any
) -> dict[str, Any]:
    for pause in (0.2, 0.5, 1.0, 2.0, None):
        try:
            async with session.request(method, path, **more) as response:
                body = await response.json(content_type=None)
                if response.status < 400:
                    return dict(body)
                if response.status not in (429, 503) or pause is None or method != "GET":
                    raise WorkshopError(str(body.get("detail") or f"HTTP {response.status}"))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if pause is None or method != "GET":
                raise WorkshopError(f"ingestion did not answer ({error})") from error
        await asyncio.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
