"""Request and response bodies of hybrid_search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from services.chassis import ApiModel

ListName = Literal["dense", "dense_english", "sparse"]
Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)]


class Filter(ApiModel):
    """Only passages that match every given field; within a field, any of its values."""

    language: Names | None = Field(None, description="passage languages, such as `pt`")
    document: Names | None = Field(None, description="document ids")
    tag: Names | None = Field(None, description="tags")


class SearchRequest(ApiModel):
    query: str = Field(min_length=1, max_length=4000, description="what to look for")
    language: str | None = Field(
        None, max_length=8, description="language of the query; chooses the weights"
    )
    top_k: int = Field(20, ge=1, le=200, description="passages wanted")
    candidates: int = Field(50, ge=1, le=500, description="passages asked of each list")
    filter: Filter = Field(default_factory=Filter, description="which passages may be found")
    lists: list[ListName] | None = Field(
        None, max_length=3, description="lists to ask; default: those with a weight"
    )
    weights: dict[str, Annotated[float, Field(ge=0, le=100)]] | None = Field(
        None, description="weight of each list; default: the setting for the language"
    )


class Passage(ApiModel):
    id: str
    document: str
    title: str
    heading: str
    position: int
    language: str
    tags: list[str]
    text: str


class PlaceInList(ApiModel):
    rank: int = Field(description="rank in that list, from 1")
    score: float = Field(description="that list's own score")


class Hit(ApiModel):
    id: str
    score: float = Field(description="fused score; comparable within one answer only")
    passage: Passage
    provenance: dict[str, PlaceInList]


class SearchResponse(ApiModel):
    hits: list[Hit]
    degraded: list[str] = Field(description="services that did not answer")
    timings_ms: dict[str, float] = Field(description="time each list took")
