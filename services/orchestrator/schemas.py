"""Request and response bodies of orchestrator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from services.chassis import ApiModel

Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)]


class Filter(ApiModel):
    """Only passages that match every given field; within a field, any of its values."""

    language: Names | None = Field(None, description="passage languages, such as `pt`")
    document: Names | None = Field(None, description="document ids")
    tag: Names | None = Field(None, description="tags")


class AnswerRequest(ApiModel):
    question: str = Field(min_length=1, max_length=2000, pattern=r"\S", description="the question")
    conversation_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]{1,64}$", description="continues a conversation"
    )
    history: list[Annotated[str, Field(max_length=2000)]] | None = Field(
        None, max_length=20, description="earlier questions, oldest first; replaces the stored ones"
    )
    language: Literal["en", "pt"] | None = Field(
        None, description="language of the answer; default: that of the question"
    )
    filter: Filter = Field(default_factory=Filter, description="which passages may be used")
    top_k: int | None = Field(None, ge=1, le=50, description="passages offered to the context")
    stream: bool = Field(False, description="answer as server-sent events")


class Citation(ApiModel):
    number: int = Field(description="as in the answer's text: [1]")
    id: str = Field(description="passage id")
    document: str
    title: str
    heading: str
    text: str


class Source(Citation):
    language: str
    passages: list[str] = Field(description="ids of the passages merged into this source")


class Decision(ApiModel):
    check: str
    action: str
    detail: str


class StageTiming(ApiModel):
    stage: str
    start_ms: float = Field(description="from the request's arrival")
    ms: float
    status: Literal["ok", "degraded", "failed", "skipped"]


class Usage(ApiModel):
    prompt_tokens: int
    completion_tokens: int


class Answer(ApiModel):
    id: str = Field(description="the request id; feedback refers to it")
    conversation_id: str
    question: str
    language: str
    answer: str
    kind: Literal["generated", "extractive", "refusal", "small_talk", "blocked"]
    citations: list[Citation]
    sources: list[Source] = Field(description="what the answer could draw on, numbered")
    groundedness: float | None = Field(description="0 to 1; null when it was not measured")
    refused: bool
    degraded: list[str] = Field(description="services that were gone for this answer")
    suggestion: str | None = Field(description="the question with its spelling corrected")
    intent: str
    decisions: list[Decision] = Field(description="what post-processing decided, and why")
    timings: list[StageTiming]
    first_token_ms: float | None = Field(description="from arrival to the first generated text")
    usage: Usage | None


class Turn(ApiModel):
    question: str
    answer: str
    at: float = Field(description="Unix time in seconds")


class Conversation(ApiModel):
    id: str
    turns: list[Turn]
