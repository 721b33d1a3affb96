"""Settings of orchestrator, read from ORCHESTRATOR_* environment variables."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

from .stages import Stage


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="ORCHESTRATOR_", extra="ignore", env_ignore_empty=True
    )
    name: ClassVar[str] = "orchestrator"

    port: int = 8001
    preprocessing_url: str = "http://127.0.0.1:8002"
    hybrid_url: str = "http://127.0.0.1:8006"
    reranking_url: str = "http://127.0.0.1:8007"
    context_url: str = "http://127.0.0.1:8008"
    generation_url: str = "http://127.0.0.1:8009"
    post_processing_url: str = "http://127.0.0.1:8010"
    broker_url: str = Field("nats://127.0.0.1:8021", description="broker for events")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default: SQLite in this service's own folder"
    )

    max_concurrency: int = 32
    default_deadline: float = Field(60.0, gt=0, description="time budget of one answer, seconds")

    candidates: int = Field(20, ge=1, le=200, description="passages that are reranked")
    context_passages: int = Field(6, ge=1, le=50, description="passages offered to the context")
    context_tokens: int = Field(260, ge=50, description="token budget of the context")
    answer_tokens: int = Field(160, ge=16, description="longest generated answer, in tokens")

    preprocessing_timeout: float = Field(0.5, gt=0, description="cap of the stage, seconds")
    search_timeout: float = Field(3.0, gt=0)
    reranking_timeout: float = Field(1.0, gt=0)
    context_timeout: float = Field(0.5, gt=0)
    generation_timeout: float = Field(50.0, gt=0)
    post_processing_timeout: float = Field(1.0, gt=0)

    preprocessing_share: float = Field(
        0.02, ge=0, description="what earlier stages leave; with half of it the stage is begun"
    )
    search_share: float = Field(0.1, ge=0)
    reranking_share: float = Field(0.08, ge=0)
    context_share: float = Field(0.04, ge=0)
    generation_share: float = Field(0.05, ge=0)
    post_processing_share: float = Field(0.1, ge=0)
    answer_reserve: float = Field(
        0.1, ge=0, description="time kept back for sending the answer, seconds"
    )

    retry_ratio: float = Field(
        0.1, ge=0, le=1, description="retries allowed per call made, over the last calls"
    )
    history_turns: int = Field(3, ge=0, le=20, description="earlier questions a follow-up sees")
    conversation_timeout: float = Field(
        0.5, gt=0, description="longest wait for the database of conversations, seconds"
    )
    conversation_ttl: float = Field(
        86_400.0, gt=0, description="a conversation untouched for so long is forgotten, seconds"
    )

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'conversations.db').resolve()}"

    @property
    def plan(self) -> tuple[Stage, ...]:
        """The stages in their order, with the time that each may take and is left."""
        return (
            Stage("query_preprocessing", self.preprocessing_timeout, self.preprocessing_share),
            Stage("hybrid_search", self.search_timeout, self.search_share),
            Stage("reranking", self.reranking_timeout, self.reranking_share),
            Stage("context_aggregation", self.context_timeout, self.context_share),
            Stage("generation", self.generation_timeout, self.generation_share),
            Stage("post_processing", self.post_processing_timeout, self.post_processing_share),
        )
