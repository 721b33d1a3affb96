"""Settings of ingestion, read from INGESTION_* environment variables; API and worker share them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

from .splitting import MAX_WORDS


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="INGESTION_", extra="ignore", env_ignore_empty=True, protected_namespaces=()
    )
    name: ClassVar[str] = "ingestion"

    port: int = 8012
    max_body_bytes: int = Field(33_000_000, ge=1_000, description="larger bodies are refused (413)")
    default_deadline: float = Field(
        60.0, gt=0, description="time budget of a request that brings none"
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default: SQLite in this service's own folder"
    )
    broker_url: str = "nats://127.0.0.1:8021"
    embedding_url: str = "http://127.0.0.1:8003"
    dense_url: str = "http://127.0.0.1:8004"
    sparse_url: str = "http://127.0.0.1:8005"
    reranking_url: str = "http://127.0.0.1:8007"
    models: dict[str, str] = Field(
        default={"bilingual": "multilingual-e5-small-enpt", "english": "all-MiniLM-L6-v2"},
        description="embedding model of each vector, as JSON; `english` is for English passages",
    )
    max_words: int = Field(
        MAX_WORDS, ge=20, le=2000, description="a section longer than this is split"
    )
    overlap_words: int = Field(
        0, ge=0, le=200, description="words at most that a part repeats from the part before it"
    )
    concurrency: int = Field(16, ge=1, le=256, description="documents the worker has in hand")
    embed_batch: int = Field(32, ge=1, le=512, description="passages in one call to embedding")
    index_batch: int = Field(64, ge=1, le=512, description="passages in one call to an index")
    call_timeout: float = Field(60.0, gt=0, description="longest wait for one call, in seconds")
    ack_wait: float = Field(
        30.0, ge=0.5, description="a job whose worker is silent this long goes to another, seconds"
    )
    max_deliveries: int = Field(
        5, ge=1, description="a job whose worker died this often is given up as failed"
    )
    max_backoff: float = Field(
        15.0, gt=0, description="longest pause before a job that waits for a service is tried again"
    )
    parse_timeout: float = Field(120.0, gt=0, description="longest time to read one file, seconds")
    parse_memory: int = Field(
        1_500_000_000, ge=100_000_000, description="memory that reading one PDF or DOCX may take"
    )
    job_retention_days: float = Field(30.0, gt=0, description="finished jobs are kept this long")
    worker_port: int | None = Field(
        None, description="port of the worker's /healthz, /readyz and /metrics; default: none"
    )

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'ingestion.db').resolve()}"

    @property
    def pipeline_version(self) -> str:
        """Changes when the same file would be indexed differently."""
        from .splitting import SPLITTER

        return f"{SPLITTER} {self.max_words}/{self.overlap_words} {sorted(self.models.items())}"
