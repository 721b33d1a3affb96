"""Settings of reranking, read from RERANKING_* environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="RERANKING_",
        extra="ignore",
        env_ignore_empty=True,
        protected_namespaces=(),
    )
    name: ClassVar[str] = "reranking"

    port: int = 8007
    max_body_bytes: int = Field(4_000_000, ge=1_000, description="larger bodies are refused (413)")
    engine: Literal["late-interaction", "cross-encoder"] = Field(
        "late-interaction", description="what scores the passages"
    )
    model_dir: Path = Field(
        Path(".workshop/models/multilingual-e5-small-enpt"),
        description="late interaction: folder of the model that gives the token vectors",
    )
    registry: Path | None = Field(
        None,
        description="late interaction: folder of the registry whose promoted weights are loaded; "
        "default: registry/ in this service's own folder",
    )
    cross_encoder_dir: Path = Field(
        Path(__file__).parent / "models" / "cross-encoder",
        description="cross-encoder: folder of the promoted model",
    )
    cross_encoder: str | None = Field(
        None,
        description="cross-encoder: any hub name or folder that sentence-transformers loads, "
        "in place of the promoted one",
    )
    max_tokens: int = Field(
        256, ge=16, le=8192, description="passages are cut here, if the model allows so many"
    )
    max_query_tokens: int = Field(64, ge=8, le=512, description="queries are cut here")
    threads: int = Field(
        min(2, os.cpu_count() or 1), ge=1, le=64, description="threads of a model's run"
    )
    batch_tokens: int = Field(
        1024,
        ge=64,
        description="padded tokens in one run of the model; the deadline is looked at between runs",
    )
    reserve: float = Field(
        0.02, ge=0, le=5, description="part of the deadline kept for the answer, in seconds"
    )
    memory_mb: int = Field(256, ge=1, description="late interaction: passages kept in memory")
    disk_mb: int = Field(
        4096, ge=1, description="late interaction: passages kept on disk; the oldest go first"
    )

    @property
    def registry_folder(self) -> Path:
        return self.registry or self.home / "registry"
