"""Request and response bodies of feedback."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from services.chassis import ApiModel

from .domain import Kind

MAX_EVENT_BYTES = 200_000
_NO_NUL = r"^[^\x00]*$"
Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")]


class FeedbackRequest(ApiModel):
    """One act of one reader about one answer.

    `thumbs`: value 1 or -1. `stars`: value 1 to 5. `comment`: the text in `comment`. `correction`:
    the better answer in `value` or `comment`. `citation_opened`: value is the passage id or number.
    """

    request_id: Identifier = Field(description="id of the answer it is about")
    kind: Kind = Field(description="what the reader did")
    value: (
        Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
        | Annotated[str, Field(max_length=10_000)]
        | None
    ) = Field(None, description="depends on the kind")
    comment: str | None = Field(None, max_length=10_000, description="free text")
    question: str | None = Field(None, max_length=4000, description="the question asked")
    answer: str | None = Field(None, max_length=20_000, description="the answer given")

    @field_validator("value", "comment", "question", "answer")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if isinstance(value, str) and "\x00" in value:
            raise ValueError("the character U+0000 cannot be stored")
        return value

    @model_validator(mode="after")
    def _value_fits_kind(self) -> FeedbackRequest:
        if self.kind == "thumbs" and self.value not in (1, -1):
            raise ValueError("value must be 1 or -1 for the kind thumbs")
        if self.kind == "stars" and self.value not in (1, 2, 3, 4, 5):
            raise ValueError("value must be 1 to 5 for the kind stars")
        if self.kind == "comment" and not (self.comment or "").strip():
            raise ValueError("comment must not be empty for the kind comment")
        if self.kind == "correction" and not str(self.value or self.comment or "").strip():
            raise ValueError("value must hold the corrected answer for the kind correction")
        return self


class FeedbackResponse(ApiModel):
    id: str
    duplicate: bool = Field(description="true: this Idempotency-Key was stored before")


class Event(ApiModel):
    """An event of another service, in the manner of CloudEvents."""

    id: Identifier = Field(description="the same id is stored once")
    type: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$",
        description="such as `answer.completed`",
    )
    time: datetime = Field(description="RFC 3339; without an offset it is UTC")
    source: str = Field(
        min_length=1, max_length=100, pattern=_NO_NUL, description="the service that sent it"
    )
    request_id: str | None = Field(
        None, max_length=128, pattern=_NO_NUL, description="the request it is about"
    )
    data: dict[str, Any] = Field(default_factory=dict, description="what happened")

    @field_validator("time")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError("the time is out of range") from None


class EventsRequest(ApiModel):
    events: list[Event] = Field(min_length=1, max_length=1000, description="events to store")


class EventsResponse(ApiModel):
    stored: int
    duplicates: int = Field(description="events whose id was stored before")


class RecordedEvent(ApiModel):
    id: str
    type: str
    time: str = Field(description="RFC 3339, UTC")
    source: str
    data: dict[str, Any]


class RecordedFeedback(ApiModel):
    id: str
    kind: Kind
    value: str | None
    comment: str | None
    question: str | None
    answer: str | None
    time: str = Field(description="RFC 3339, UTC")


class RecordResponse(ApiModel):
    """All that is kept of one request."""

    request_id: str
    events: list[RecordedEvent] = Field(description="what the services told of it")
    feedback: list[RecordedFeedback] = Field(description="what its reader did")


class ForgetResponse(ApiModel):
    events: int = Field(description="events that were deleted")
    feedback: int = Field(description="acts of the reader that were deleted")


ReportName = Literal["by-day", "by-stage", "worst-questions", "intent-drift"]


class Report(ApiModel):
    report: ReportName
    days: int = Field(description="days covered, the present one included")
    since: str = Field(description="first day, UTC")
    summary: dict[str, float | int | None] = Field(description="figures over all rows")
    rows: list[dict[str, Any]]
