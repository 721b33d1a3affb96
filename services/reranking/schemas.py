"""Request and response bodies of reranking, in the shape of Cohere's and Jina's rerank APIs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from services.chassis import ApiModel

MAX_DOCUMENTS = 1000
Text = Annotated[str, Field(min_length=1, max_length=100_000)]


class Document(ApiModel):
    """A text with whatever else the caller wants back with `return_documents`."""

    model_config = ConfigDict(extra="allow")

    text: Text = Field(description="what is compared with the query")


class RerankRequest(ApiModel):
    model: str | None = Field(
        None, max_length=200, description="default: the model that this service runs"
    )
    query: str = Field(
        min_length=1, max_length=4000, description="what the documents should answer"
    )
    documents: list[Text | Document] = Field(
        min_length=1,
        max_length=MAX_DOCUMENTS,
        description="texts, or objects with a `text`, in the order that was best so far",
    )
    top_n: int | None = Field(
        None, ge=1, le=MAX_DOCUMENTS, description="results wanted; default: all"
    )
    return_documents: bool = Field(False, description="put each document into its result")


class Result(ApiModel):
    index: int = Field(description="place of the document in the request, from 0")
    relevance_score: float = Field(
        description="0 to 1, higher is better; comparable within one model. 0 where there was no "
        "time to look"
    )
    document: dict[str, Any] | None = Field(None, description="only with `return_documents`")


class Meta(ApiModel):
    engine: Literal["late-interaction", "cross-encoder"]
    ranked: int = Field(description="documents that were scored; the rest keep their order")
    complete: bool = Field(description="whether all were")


class RerankResponse(ApiModel):
    id: str = Field(description="the request id")
    model: str
    results: list[Result] = Field(description="best first")
    meta: Meta


class PassagesRequest(ApiModel):
    texts: list[Text] = Field(
        min_length=1, max_length=MAX_DOCUMENTS, description="index texts of passages"
    )


class PassagesResponse(ApiModel):
    encoded: int = Field(description="texts encoded now (always 0 for a cross-encoder)")
    known: int = Field(description="texts that had been encoded before")


class Model(ApiModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    engine: str


class ModelList(ApiModel):
    object: Literal["list"] = "list"
    data: list[Model]
