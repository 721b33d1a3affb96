"""Settings of post_processing, read from POST_PROCESSING_* environment variables."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

from .domain import Policy

_DEFAULT = Policy()


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="POST_PROCESSING_", extra="ignore", env_ignore_empty=True
    )
    name: ClassVar[str] = "post_processing"

    port: int = 8010
    support_threshold: float = Field(
        _DEFAULT.support_threshold,
        ge=0,
        le=1,
        description="least support of a sentence by a source in its language",
    )
    cross_threshold: float = Field(
        _DEFAULT.cross_threshold,
        ge=0,
        le=1,
        description="least support of a sentence by a source in the other language",
    )
    relevance_threshold: float = Field(
        _DEFAULT.relevance_threshold,
        ge=0,
        le=1,
        description="least share of the question that the sources must hold",
    )
    mask_personal_data: bool = Field(True, description="mask personal data in answers")
    mask_profanity: bool = Field(True, description="mask profane words that no source holds")

    @property
    def policy(self) -> Policy:
        return Policy(
            support_threshold=self.support_threshold,
            cross_threshold=self.cross_threshold,
            relevance_threshold=self.relevance_threshold,
            mask_personal_data=self.mask_personal_data,
            mask_profanity=self.mask_profanity,
        )
