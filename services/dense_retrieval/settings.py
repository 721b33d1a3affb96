"""Settings of dense_retrieval, read from DENSE_* environment variables."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="DENSE_", extra="ignore", env_ignore_empty=True, env_nested_delimiter="__"
    )
    name: ClassVar[str] = "dense_retrieval"

    port: int = 8004
    max_body_bytes: int = Field(16_000_000, ge=1_000, description="larger bodies are refused (413)")
    store: Literal["edge", "client"] = Field(
        "edge", description="`edge`: Qdrant's engine in this process; `client`: qdrant-client"
    )
    qdrant_url: str | None = Field(
        None, description="a Qdrant server for the store `client`; without it, a local folder"
    )
    qdrant_api_key: SecretStr | None = Field(None, description="key of that server")
    collection: str = Field(
        "passages", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the collection"
    )
    embedding_url: str = "http://127.0.0.1:8003"
    embedding_timeout: float = Field(
        5.0, gt=0, description="longest wait for the vector of a query, in seconds"
    )
    embedding_share: float = Field(
        0.9, gt=0, le=1, description="share of the time left that the vector of a query may take"
    )
    exact_below: int = Field(
        50_000, ge=0, description="up to this many passages search is exact; above, by HNSW"
    )
    hnsw_ef: int = Field(128, ge=16, le=4096, description="candidates an HNSW search keeps")
    min_free_bytes: int = Field(
        200_000_000, ge=0, description="writes are refused when the disk has less free space"
    )
