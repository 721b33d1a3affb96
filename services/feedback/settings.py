"""Settings of feedback, read from FEEDBACK_* environment variables."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FEEDBACK_", extra="ignore", env_ignore_empty=True)
    name: ClassVar[str] = "feedback"

    port: int = 8011
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default: SQLite in this service's own folder"
    )
    broker_url: str = "nats://127.0.0.1:8021"
    consume: bool = Field(True, description="take events from the broker")
    consumers: int = Field(64, ge=1, le=1000, description="events stored at once")
    max_waiting: int = Field(
        10_000, ge=1, description="rows that may wait for their commit; more are refused with 503"
    )
    max_database_bytes: int | None = Field(
        None, ge=65_536, description="SQLite only: largest size of the database file"
    )

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'feedback.db').resolve()}"
