"""Settings of hybrid_search, read from HYBRID_* environment variables."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="HYBRID_", extra="ignore", env_ignore_empty=True, env_nested_delimiter="__"
    )
    name: ClassVar[str] = "hybrid_search"

    port: int = 8006
    dense_url: str = "http://127.0.0.1:8004"
    sparse_url: str = "http://127.0.0.1:8005"
    list_timeout: float = Field(2.0, gt=0, description="longest wait for one list, in seconds")
    list_share: float = Field(
        0.5, gt=0, le=1, description="a list is waited for this part of the time left, at most"
    )
    rrf_k: float = Field(60.0, gt=0, description="the constant of reciprocal rank fusion")
    # Measured by `workshop evaluate` on validation questions: in Portuguese the bilingual vectors
    # are well behind BM25, and equal weights would lower its result.
    weights: dict[str, dict[str, float]] = Field(
        default={
            "en": {"sparse": 2.0, "dense": 1.0, "dense_english": 1.0},
            "pt": {"sparse": 4.0, "dense": 1.0},
            "other": {"sparse": 1.0, "dense": 1.0},
        },
        description="weight of each list by query language, as JSON; an absent list is not asked",
    )
