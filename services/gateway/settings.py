"""Settings of gateway, read from GATEWAY_* environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import limits
from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

from .keys import parse_keys


def _rate(text: str) -> str:
    try:
        limits.parse(text)
    except ValueError:
        raise ValueError("write it as `60/minute` or `5000/day`, or `off`") from None
    return text


def _rate_or_off(text: str) -> str:
    return text if text == "off" else _rate(text)


def _keys(text: str) -> str:
    parse_keys(text)
    return text


Rate = Annotated[str, AfterValidator(_rate_or_off)]


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )
    name: ClassVar[str] = "gateway"

    port: int = 8000
    orchestrator_url: str = "http://127.0.0.1:8001"
    hybrid_url: str = "http://127.0.0.1:8006"
    reranking_url: str | None = Field(
        None, description="without it, a search with `rerank` says that it was not reranked"
    )
    ingestion_url: str = "http://127.0.0.1:8012"
    feedback_url: str = "http://127.0.0.1:8011"
    broker_url: str = Field("nats://127.0.0.1:8021", description="broker for events")

    max_concurrency: int = 128
    default_deadline: float = Field(
        60.0,
        gt=0,
        description="time budget of a request; a caller may ask for less, never for more",
    )
    upload_deadline: float = Field(300.0, gt=0, description="time budget of an upload, seconds")
    search_timeout: float = Field(5.0, gt=0, description="longest wait for a search, seconds")
    reranking_timeout: float = Field(2.0, gt=0, description="longest wait for reranking, seconds")
    feedback_timeout: float = Field(
        1.0, gt=0, description="wait for the feedback service before the outbox takes over"
    )

    max_body_bytes: int = Field(
        32_000_000, ge=1_000, description="largest document; every other body: max_json_bytes"
    )
    max_json_bytes: int = Field(
        256_000, ge=1_000, description="largest body of every route but /v1/documents"
    )
    body_pause: float = Field(
        10.0, gt=0, description="longest silence while a body arrives, seconds (then 408)"
    )
    body_time: float = Field(
        20.0, gt=0, description="longest time for a body other than a document, seconds (then 408)"
    )

    api_keys: Annotated[str, AfterValidator(_keys)] = Field(
        "", description="`name:sha256` pairs, separated by commas or spaces", repr=False
    )
    api_keys_file: Path | None = Field(
        None, description="the same, one pair a line; read again when it changes"
    )
    anonymous: Literal["loopback", "anyone"] = Field(
        "loopback", description="who may call while no key is configured"
    )
    allowed_hosts: list[str] = Field(
        default=["localhost", "127.0.0.1", "[::1]"],
        description="Host names accepted while no key is configured (against DNS rebinding)",
    )
    rate_limit: Rate = Field(
        "1200/minute", description="requests per key: burst, and refill over the time"
    )
    daily_quota: Rate = Field("100000/day", description="requests per key in a longer window")
    limits_storage: str = Field(
        "memory://", description="where counts live; redis://… shares them between gateways"
    )
    cors_origins: list[str] = Field(
        default=[], description="other sites whose pages may call, such as https://example.org"
    )
