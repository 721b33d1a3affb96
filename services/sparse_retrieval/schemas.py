"""Request and response bodies of sparse_retrieval."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.chassis import ApiModel

Id = Annotated[str, Field(min_length=1, max_length=512)]
Tag = Annotated[str, Field(min_length=1, max_length=100)]
Names = Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=100)]


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


class PutRequest(ApiModel):
    passages: list[Passage] = Field(
        min_length=1, max_length=1000, description="each takes the place of the one with its id"
    )


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
    query: str = Field(
        min_length=1, max_length=4000, description="plain words; operators have no meaning"
    )
    language: str | None = Field(
        None, max_length=16, description="language of the query; null or another: all analyses"
    )
    top_k: int = Field(50, ge=1, le=500, description="passages wanted")
    filter: Filter = Field(default_factory=Filter, description="which passages may be found")


class Hit(ApiModel):
    id: str = Field(description="passage id")
    score: float = Field(description="BM25; comparable within one answer only")
    passage: Passage = Field(description="the passage as it was stored")


class SearchResponse(ApiModel):
    hits: list[Hit] = Field(description="best first; ties in order of id")


class VocabularyResponse(ApiModel):
    version: str = Field(description="changes when a word or a frequency does; also the ETag")
    terms: dict[str, int] = Field(description="word, lower case and unstemmed → passages with it")


class StatsResponse(ApiModel):
    passages: int = Field(description="passages stored")
    documents: int = Field(description="documents that have a passage here")
    languages: dict[str, int] = Field(description="passages by language")
    store: str = Field(description="where the index is: `disk` or `memory`")
