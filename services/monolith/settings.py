"""Settings of the monolith as a container, read from MONOLITH_* environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

_OUT = Field(None, description="URL of the service that has taken this stage out; else inside")


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="MONOLITH_", extra="ignore", env_ignore_empty=True, protected_namespaces=()
    )
    name: ClassVar[str] = "monolith"

    default_deadline: float = Field(
        120.0, gt=0, description="time budget of a request that brings none"
    )
    models_dir: Path = Field(Path(".workshop/models"), description="folder of the model folders")
    llm: str = Field("qwen2.5-coder-0.5b-instruct", description="folder of the language model")

    embedding_url: str | None = _OUT
    dense_url: str | None = _OUT
    sparse_url: str | None = _OUT
    hybrid_url: str | None = _OUT
    preprocessing_url: str | None = _OUT
    reranking_url: str | None = _OUT
    context_url: str | None = _OUT
    generation_url: str | None = _OUT
    post_processing_url: str | None = _OUT
