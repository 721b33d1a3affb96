"""Request and response bodies of query_preprocessing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from services.chassis import ApiModel

StepName = Literal[
    "normalize", "language", "spelling", "intent", "rewrite", "expansion", "llm_rewrite"
]
Question = Annotated[str, Field(max_length=4000)]


class PreprocessRequest(ApiModel):
    query: str = Field(min_length=1, max_length=4000, description="the question as typed")
    history: list[Question] = Field(
        default_factory=list,
        max_length=50,
        description="earlier questions of the conversation, oldest first",
    )
    steps: dict[StepName, bool] = Field(
        default_factory=dict, description="steps to switch on or off for this question"
    )


class StepReport(ApiModel):
    name: StepName
    applied: bool = Field(description="whether the step found or changed something")
    detail: str = Field(description="what it did, in words")
    ms: float = Field(description="time it took, in milliseconds")


class PreprocessResponse(ApiModel):
    query: str = Field(description="the question as typed")
    normalized: str = Field(description="the same in clean Unicode")
    language: Literal["en", "pt"] = Field(description="language to answer in")
    language_detected: str = Field(description="language of the question, as an ISO 639-1 code")
    language_supported: bool = Field(description="whether questions in it are answered in it")
    language_confidence: float = Field(description="0 to 1")
    suggestion: str | None = Field(
        description="the question with corrected spelling, if it differs"
    )
    intent: Literal["question", "follow_up", "small_talk", "out_of_scope", "harmful"]
    search_query: str = Field(description="what retrieval should be asked")
    expansions: list[str] = Field(description="acronyms written out, and synonyms")
    steps: list[StepReport]
