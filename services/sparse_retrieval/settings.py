"""Settings of sparse_retrieval, read from SPARSE_* environment variables."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="SPARSE_", extra="ignore", env_ignore_empty=True, env_nested_delimiter="__"
    )
    name: ClassVar[str] = "sparse_retrieval"

    port: int = 8005
    max_body_bytes: int = Field(16_000_000, ge=1_000, description="larger bodies are refused (413)")
    min_free_bytes: int = Field(
        100_000_000, ge=0, description="writes are refused when the disk has less free space"
    )
    in_memory: bool = Field(
        False, description="keep the index in memory only; it is empty after a restart"
    )
