"""Settings of embedding, read from EMBEDDING_* environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="EMBEDDING_",
        extra="ignore",
        env_ignore_empty=True,
        protected_namespaces=(),
    )
    name: ClassVar[str] = "embedding"

    port: int = 8003
    max_body_bytes: int = Field(4_000_000, ge=1_000, description="larger bodies are refused (413)")
    runtime: Literal["onnx", "sentence-transformers"] = Field(
        "onnx", description="what runs the models"
    )
    model: str | None = Field(
        None,
        description="default model, in place of `model_dir`: a folder, or (with the runtime "
        "sentence-transformers) any hub name",
    )
    model_dir: Path = Field(
        Path(".workshop/models/multilingual-e5-small-enpt"),
        description="folder of the bilingual model, the default one",
    )
    english_model_dir: Path = Field(
        Path(".workshop/models/all-MiniLM-L6-v2"),
        description="folder of the English model; not served when the folder is not there",
    )
    query_prefix: str | None = Field(
        None, description="put before queries; default: what the model's own configuration says"
    )
    passage_prefix: str | None = Field(
        None, description="put before passages; default: what the model's own configuration says"
    )
    max_tokens: int | None = Field(
        None, ge=8, description="cut texts here, if the model's own limit is not lower"
    )
    threads: int = Field(
        min(2, os.cpu_count() or 1), ge=1, le=64, description="threads of a model's run"
    )
    max_batch: int = Field(32, ge=1, le=1024, description="texts in one run of a model")
    bulk_batch_tokens: int = Field(
        512,
        ge=16,
        description="tokens in one run for a long list; an arriving query waits for one at most",
    )
    cache_size: int = Field(
        10_000, ge=0, description="vectors kept for texts seen before (0: none), each about 2 kB"
    )
