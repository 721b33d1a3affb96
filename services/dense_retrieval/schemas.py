"""Request and response bodies of dense_retrieval."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from services.chassis import ApiModel

from .vectors import MAX_DIMENSIONS, decode

Role = Literal["bilingual", "english"]
Id = Annotated[str, Field(min_length=1, max_length=512)]
Tag = Annotated[str, Field(min_length=1, max_length=100)]
Names = Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=100)]
ModelName = Annotated[
    str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
]
Vector = Annotated[
    Any,
    PlainValidator(decode),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": "little-endian float32",
                },
                {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 1,
                    "maxItems": MAX_DIMENSIONS,
                },
            ]
        }
    ),
]


class Passage(ApiModel):
    id: Id = Field(description="document id, with `#` and the heading's slug after the opening")
    document: Id = Field(description="id of the document it is part of")
    title: str = Field(max_length=1000, description="title of the document")
    heading: str = Field("", max_length=1000, description="heading of the section, or empty")
    position: int = Field(0, ge=0, le=1_000_000, description="place in the document, from 0")
    language: str = Field(
        min_length=2, max_length=16, description="language of the text, such as `pt`"
    )
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="tags to filter by")
    text: str = Field(min_length=1, max_length=50_000, description="the passage itself")


class PassageWithVectors(Passage):
    vectors: dict[Role, Vector] = Field(
        min_length=1, description="some or all of the vectors that `models` names"
    )


class PutRequest(ApiModel):
    models: dict[Role, ModelName] = Field(
        min_length=1, description="the model that made each named vector"
    )
    passages: list[PassageWithVectors] = Field(
        min_length=1, max_length=1000, description="each takes the place of the one with its id"
    )

    @model_validator(mode="after")
    def _models_are_named(self) -> PutRequest:
        for number, passage in enumerate(self.passages):
            for role in passage.vectors:
                if role not in self.models:
                    raise ValueError(f"passages.{number} has the vector {role}: models lacks it")
        return self


class PutResponse(ApiModel):
    stored: int = Field(description="passages that are now on disk")


class DeleteResponse(ApiModel):
    deleted: int = Field(description="passages that were there and are gone")


class Filter(ApiModel):
    """Only passages that match every given field; within a field, any of its values."""

    language: Names | None = Field(None, description="passage languages, such as `pt`")
    document: Names | None = Field(None, description="document ids")
    tag: Names | None = Field(None, description="tags")


class SearchRequest(ApiModel):
    query: str | None = Field(
        None, min_length=1, max_length=4000, description="text; the embedding service is asked"
    )
    vector: Vector | None = Field(None, description="a vector, in place of `query`")
    using: Role = Field("bilingual", description="which of the passages' vectors to compare with")
    model: ModelName | None = Field(
        None, description="the model that made `vector`; refused (409) if it is not the stored one"
    )
    top_k: int = Field(50, ge=1, le=500, description="passages wanted")
    filter: Filter = Field(default_factory=Filter, description="which passages may be found")

    @model_validator(mode="after")
    def _one_of_both(self) -> SearchRequest:
        if (self.query is None) == (self.vector is None):
            raise ValueError("give either query or vector")
        return self


class Hit(ApiModel):
    id: str = Field(description="passage id")
    score: float = Field(description="cosine similarity, -1 to 1")
    passage: Passage = Field(description="the passage as it was stored")


class SearchResponse(ApiModel):
    hits: list[Hit] = Field(description="best first; ties in order of id")
    model: str | None = Field(description="the model of the vectors; null when there are none")
    using: Role = Field(description="which of the passages' vectors were compared")


class ModelInfo(ApiModel):
    model: str = Field(description="the model that made the vectors")
    dimensions: int = Field(description="numbers in each vector")


class StatsResponse(ApiModel):
    passages: int = Field(description="passages stored")
    documents: int = Field(description="documents that have a passage here")
    models: dict[str, ModelInfo] = Field(description="named vector → what made it")
    store: str = Field(description="`edge`, `client-local` or `client-server`")
