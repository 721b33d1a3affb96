"""Request and response bodies of context_aggregation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.chassis import ApiModel

Tag = Annotated[str, Field(max_length=100)]


class RankedPassage(ApiModel):
    id: str = Field(min_length=1, max_length=500, description="the passage's id")
    document: str = Field(max_length=500, description="id of the document that holds it")
    title: str = Field("", max_length=1000, description="title of the document")
    heading: str = Field("", max_length=1000, description="heading of the section; may be empty")
    position: int = Field(
        0, ge=0, le=10_000_000, description="place in the document, from 0; neighbours differ by 1"
    )
    language: str = Field("en", max_length=8, description="language of the text, such as `pt`")
    tags: list[Tag] = Field(default_factory=list, max_length=100, description="tags; not used")
    text: str = Field(max_length=20_000, description="the passage itself")
    score: float | None = Field(
        None, description="score of the stage before; not used: the order of the list counts"
    )


class ContextRequest(ApiModel):
    query: str = Field(min_length=1, max_length=4000, description="the question to be answered")
    language: str = Field(
        "en", min_length=2, max_length=8, description="language of the question: `en` or `pt`"
    )
    passages: list[RankedPassage] = Field(max_length=200, description="candidates, best first")
    max_tokens: int | None = Field(
        None, ge=1, le=100_000, description="token budget of the context; default: the setting"
    )
    max_passages: int | None = Field(
        None, ge=1, le=200, description="passages used at most; default: the setting"
    )


class ContextSource(ApiModel):
    number: int = Field(description="the number it is cited by, from 1")
    id: str = Field(description="id of the passage; of the best one when several were merged")
    document: str
    title: str
    heading: str
    language: str
    text: str = Field(description="the sentences that were extracted")
    passages: list[str] = Field(description="ids of all passages in it, in reading order")


class DroppedPassage(ApiModel):
    id: str
    reason: str = Field(description="why it is not in the context")


class ContextResponse(ApiModel):
    context: str = Field(description="numbered text for the prompt; empty when nothing fits")
    sources: list[ContextSource]
    tokens: int = Field(description="length of `context` in the model's own tokens")
    dropped: list[DroppedPassage]
