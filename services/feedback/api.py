"""The HTTP face of feedback, and its consumer of the other services' events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, FastAPI, Header, Query, Request
from prometheus_client import Counter
from pydantic import ValidationError
from starlette.responses import Response

from services.chassis import ApiModel, Problem, create_service, get_logger
from services.chassis.broker import EVENTS, Broker, Delivery
from services.chassis.database import once_there

from . import domain
from .domain import CountVotes, Delivered, Interval, NotUnderstood, Unavailable
from .schemas import (
    MAX_EVENT_BYTES,
    Event,
    EventsRequest,
    EventsResponse,
    FeedbackRequest,
    FeedbackResponse,
    ForgetResponse,
    RecordedEvent,
    RecordedFeedback,
    RecordResponse,
    Report,
    ReportName,
)
from .settings import Settings
from .store import FEEDBACK_GIVEN, Given, Happened, KeyReused, Store

Consume = Callable[
    [Delivered, Callable[[bytes], Happened], Callable[[Happened], Awaitable[bool]]], Awaitable[str]
]


def create_app(
    settings: Settings,
    *,
    count: CountVotes = domain.count_votes,
    interval: Interval = domain.wilson,
    consume: Consume = domain.consume,
) -> FastAPI:
    """`count` and `interval` judge the votes of a question, `consume` takes events in."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        store = await once_there(
            lambda: Store(
                settings.sqlalchemy_url,
                max_waiting=settings.max_waiting,
                max_database_bytes=settings.max_database_bytes,
            ),
            app.state.readiness.set_missing,
        )
        app.state.store = store
        consumed = Counter(
            "feedback_events_consumed",
            "Events from the broker by what became of them.",
            ("result",),
            registry=app.state.metrics.registry,
        )
        broker = None
        if settings.consume:
            broker = Broker(settings.broker_url, client="feedback", streams=(EVENTS,))
            broker.subscribe(
                EVENTS,
                EVENTS.groups[0],
                Consumer(store, consumed, consume).handle,
                workers=settings.consumers,
            )
            # Without a broker the service is ready all the same: HTTP needs none.
            broker.start()
        yield
        if broker is not None:
            await broker.stop()
        await asyncio.to_thread(store.close)

    return create_service(
        settings,
        title="feedback",
        description="Stores what readers do and what services report; reports over both.",
        router=_router(count, interval),
        resources=resources,
    )


class Consumer:
    """Stores the events of the broker; each is acknowledged after its commit."""

    def __init__(self, store: Store, consumed: Counter, consume: Consume = domain.consume) -> None:
        self._store, self._consumed, self._consume = store, consumed, consume

    async def handle(self, delivery: Delivery) -> None:
        result = await self._consume(delivery, _understood, self._append)
        self._consumed.labels(result).inc()

    async def _append(self, happened: Happened) -> bool:
        try:
            return await self._store.append(happened)
        except Unavailable as error:
            get_logger().warning("event_waits", reason=str(error))
            raise


def _understood(body: bytes) -> Happened:
    try:
        return _happened(Event.model_validate_json(body))
    except (ValidationError, Problem) as error:
        # It will never be understood. The log says which part, and nothing of its content.
        fields = (
            [".".join(map(str, e["loc"])) for e in error.errors()]
            if isinstance(error, ValidationError)
            else [str(error)]
        )
        get_logger().error("event_not_understood", fields=fields)
        raise NotUnderstood from error


def _router(count: CountVotes, interval: Interval) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/feedback",
        status_code=201,
        response_model=FeedbackResponse,
        summary="Say what a reader did or thinks",
    )
    async def give(
        body: FeedbackRequest,
        request: Request,
        idempotency_key: Annotated[
            str | None,
            Header(
                min_length=1,
                max_length=200,
                description="the same key and body are stored once, however often they are sent",
            ),
        ] = None,
    ) -> Response:
        """Answers 201 only once it is on disk; 503 means that nothing was stored."""
        given = Given.of(body.model_dump(), idempotency_key)
        new = await _stored(request, given)
        return _json({"id": given.id, "duplicate": not new}, 201)

    @router.post("/events", response_model=EventsResponse, summary="Store events without a broker")
    async def events(body: EventsRequest, request: Request) -> Response:
        items = [_happened(event) for event in body.events]
        results = await asyncio.gather(
            *(_stored(request, item) for item in items), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result  # those that were stored will be duplicates of the next try
        stored = sum(bool(result) for result in results)
        return _json({"stored": stored, "duplicates": len(results) - stored})

    @router.get(
        "/reports/{report}",
        response_model=Report,
        summary="Figures by day, by stage, by question, by intent",
        responses={200: {"content": {"text/csv": {}}}},
    )
    async def reports(
        report: ReportName,
        request: Request,
        days: Annotated[int, Query(ge=1, le=366, description="days back, today included")] = 30,
        format: Annotated[Literal["json", "csv"], Query(description="form of the answer")] = "json",
    ) -> Response:
        store = request.app.state.store
        made = await asyncio.to_thread(make_report, store, report, days, count, interval)
        if format == "csv":
            return Response(
                domain.to_csv(made["rows"]),
                media_type="text/csv; charset=utf-8",
                headers={"content-disposition": f'attachment; filename="{report}.csv"'},
            )
        return _json(made)

    @router.get("/requests/{request_id:path}", summary="All that is kept of one request")
    async def record(request_id: str, request: Request) -> RecordResponse:
        """The way from a bad vote to its cause: how the answer was made, and from what."""
        store: Store = request.app.state.store
        events, given = await asyncio.to_thread(store.record, request_id)
        if not events and not given:
            raise Problem(404, "not-found", "Nothing is kept of a request with this id.")
        for row in given:
            row["time"] = datetime.fromtimestamp(row["created_at"], UTC).isoformat()
        return RecordResponse.model_validate(
            {
                "request_id": request_id,
                "events": [_only(row, RecordedEvent) for row in events],
                "feedback": [_only(row, RecordedFeedback) for row in given],
            }
        )

    @router.delete("/requests/{request_id:path}", summary="Forget one request")
    async def forget(request_id: str, request: Request) -> ForgetResponse:
        """For whoever asks to be forgotten. Nothing to forget is no error."""
        store: Store = request.app.state.store
        try:
            events, given = await store.forget(request_id)
        except Unavailable as error:
            raise Problem(503, "not-stored", f"Nothing was deleted: {error}.") from error
        return ForgetResponse(events=events, feedback=given)

    return router


def make_report(
    store: Store,
    report: ReportName,
    days: int,
    count: CountVotes = domain.count_votes,
    interval: Interval = domain.wilson,
) -> dict[str, Any]:
    """The report over the last `days` days, today (UTC) included. Blocks."""
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    since = first.isoformat()
    summary: dict[str, float | int | None] = {}
    if report == "by-day":
        rows = domain.by_day(store.answers(since), store.votes(since))
        summary = {"answers": sum(row["answers"] for row in rows)}
    elif report == "by-stage":
        rows = domain.by_stage(store.timings(since))
    elif report == "worst-questions":
        rows = domain.worst_questions(
            store.answers(since), store.votes(since), count=count, interval=interval
        )
    else:
        before = (first - timedelta(days=days)).isoformat()
        rows, divergence = domain.intent_drift(store.answers(since), store.answers(before, since))
        summary = {"divergence": divergence}
    return {"report": report, "days": days, "since": since, "summary": summary, "rows": rows}


def _happened(event: Event) -> Happened:
    try:
        raw = orjson.dumps(event.data)
    except orjson.JSONEncodeError as error:
        raise Problem(422, "invalid-field", f"events: data cannot be kept: {error}.") from None
    if len(raw) > MAX_EVENT_BYTES:
        raise Problem(422, "invalid-field", f"events: data is larger than {MAX_EVENT_BYTES} bytes.")
    # PostgreSQL has no place for U+0000; the replacement character shows that one was there.
    data = orjson.loads(raw.replace(b"\\u0000", b"\\ufffd"))
    given, about = None, event.request_id
    if event.type == FEEDBACK_GIVEN:
        # From the gateway's outbox, when this service could not be reached.
        key = event.data.get("idempotency_key")
        body = {k: v for k, v in event.data.items() if k != "idempotency_key"}
        try:
            known = FeedbackRequest.model_validate(body).model_dump()
        except ValidationError as error:
            raise Problem(422, "invalid-field", "events: data is no feedback.") from error
        given = Given.of(known, key if isinstance(key, str) else f"event:{event.id}")
        about = given.request_id  # the answer's, not that of the request which brought the vote
    return Happened(event.id, event.type, event.time, event.source, about, data, given)


async def _stored(request: Request, item: Given | Happened) -> bool:
    store: Store = request.app.state.store
    try:
        return await store.append(item)
    except Unavailable as error:
        raise Problem(
            503,
            "not-stored",
            f"Nothing was stored: {error}. Send it again later, with the same Idempotency-Key.",
            headers={"retry-after": "5"},
        ) from error
    except KeyReused:
        raise Problem(
            422,
            "idempotency-key-reused",
            "Idempotency-Key: this key was used for another feedback. Use a new key.",
        ) from None


def _only(row: dict[str, Any], model: type[ApiModel]) -> dict[str, Any]:
    return {name: row[name] for name in model.model_fields}


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
