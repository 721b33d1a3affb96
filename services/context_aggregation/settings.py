"""Settings of context_aggregation, read from CONTEXT_* environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

from .domain import Options, Order

DEFAULT_MODEL = Path(".workshop/models/qwen2.5-coder-0.5b-instruct")


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="CONTEXT_", extra="ignore", env_ignore_empty=True, protected_namespaces=()
    )
    name: ClassVar[str] = "context_aggregation"

    port: int = 8008
    tokenizer_path: Path = Field(
        DEFAULT_MODEL,
        description="the language model's .gguf, its tokenizer.json, or a folder with one of them",
    )
    max_tokens: int = Field(
        260, ge=1, le=100_000, description="token budget of a request that names none"
    )
    max_passages: int = Field(
        6, ge=1, le=200, description="passages used of a request that names no number"
    )
    duplicates: bool = Field(True, description="drop near-duplicates")
    duplicate_similarity: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Jaccard similarity of word triples from which two are the same",
    )
    twins: bool = Field(True, description="of a section and its translation keep one")
    extract: bool = Field(True, description="choose sentences; off: cut at sentence ends")
    least_share: float = Field(
        0.0, ge=0, le=1, description="leave out sentences below this share of the best score"
    )
    merge: bool = Field(True, description="merge neighbours of a document into one source")
    headings: bool = Field(True, description="put title and heading above each source")
    order: Order = Field("best_first", description="best_first, or edges (weakest in the middle)")

    def options(self) -> Options:
        """The domain's options that these settings stand for."""
        return Options(
            duplicates=self.duplicates,
            duplicate_similarity=self.duplicate_similarity,
            twins=self.twins,
            extract=self.extract,
            least_share=self.least_share,
            merge=self.merge,
            headings=self.headings,
            order=self.order,
            max_passages=self.max_passages,
        )
