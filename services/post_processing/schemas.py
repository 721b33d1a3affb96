"""Request and response bodies of post_processing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from services.chassis import ApiModel

Name = Annotated[str, Field(max_length=500)]


class SourceBody(ApiModel):
    """A numbered source as context_aggregation gave it and as the model saw it."""

    number: int = Field(ge=1, le=999, description="what `[n]` in the answer points at")
    id: Name = Field(description="passage id")
    document: Name = Field(description="document id")
    title: Name = Field("", description="title of the document")
    heading: Name = Field("", description="heading of the passage")
    language: str = Field(max_length=20, description="language of the text, `en` or `pt`")
    text: str = Field(max_length=20_000, description="the sentences that the model saw")
    passages: Annotated[list[Name], Field(max_length=100)] = Field(
        default_factory=list, description="ids of the passages behind it"
    )


class PostprocessRequest(ApiModel):
    question: str = Field(min_length=1, max_length=4000, description="the question as searched for")
    answer: str = Field(max_length=20_000, description="the text to check, Markdown")
    sources: Annotated[list[SourceBody], Field(max_length=50)] = Field(
        description="the sources that the answer was made from"
    )
    language: str = Field(
        min_length=2, max_length=20, description="language of the answer, `en` or `pt`"
    )
    mode: Literal["generated", "extractive"] = Field(
        "generated", description="a model's text, or sentences of the sources"
    )

    @field_validator("sources")
    @classmethod
    def _numbered_once(cls, sources: list[SourceBody]) -> list[SourceBody]:
        numbers = [source.number for source in sources]
        if len(set(numbers)) < len(numbers):
            raise ValueError("two sources have the same number")
        return sources


class Citation(ApiModel):
    number: int = Field(description="as in the answer's `[n]`")
    id: str
    document: str
    title: str
    heading: str
    text: str = Field(description="the source's text; identity and payment numbers are masked")


class DecisionBody(ApiModel):
    check: str = Field(
        description="prompt_leak, refusal, citation, groundedness, relevance, personal_data, "
        "profanity, markdown or formatting"
    )
    action: str = Field(description="passed, measured, added, replaced, removed, masked or refused")
    detail: str


class PostprocessResponse(ApiModel):
    answer: str = Field(description="safe to show; a refusal in the answer's language if refused")
    citations: list[Citation] = Field(description="the sources that the answer cites")
    groundedness: float = Field(
        ge=0, le=1, description="share of the given answer that its sources support, by weight"
    )
    refused: bool
    decisions: list[DecisionBody] = Field(description="what each check did, in order")
