"""Settings of query_preprocessing, read from PREPROCESSING_* environment variables."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

from .domain import STEPS, Options


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="PREPROCESSING_", extra="ignore", env_ignore_empty=True
    )
    name: ClassVar[str] = "query_preprocessing"

    port: int = 8002
    normalize: bool = Field(True, description="run the step `normalize`")
    language: bool = Field(True, description="run the step `language`")
    spelling: bool = Field(True, description="run the step `spelling`")
    intent: bool = Field(True, description="run the step `intent`")
    rewrite: bool = Field(True, description="run the step `rewrite`")
    expansion: bool = Field(True, description="run the step `expansion`")
    llm_rewrite: bool = Field(False, description="run the step `llm_rewrite`")
    search_corrected: bool = Field(
        True, description="search for the corrected spelling; off: only suggest it"
    )
    search_expanded: bool = Field(
        False, description="add the expansions to the search query; off: only report them"
    )
    default_language: Literal["en", "pt"] = Field(
        "en", description="language of a question that does not show one"
    )
    vocabulary_url: str = Field(
        "http://127.0.0.1:8005", description="sparse_retrieval, for the corpus's words"
    )
    vocabulary_refresh: float = Field(
        30.0, gt=0, description="time between two looks at the vocabulary, in seconds"
    )
    llm_url: str = Field(
        "http://127.0.0.1:8020/v1", description="OpenAI-compatible API for `llm_rewrite`"
    )
    llm_model: str = Field("default", max_length=200, description="model asked for there")
    llm_api_key: SecretStr = Field(SecretStr(""), description="key for that API, if it wants one")
    llm_timeout: float = Field(
        0.8, gt=0, le=30, description="longest wait for a rewrite, in seconds"
    )

    def options(self) -> Options:
        """The domain's options that these settings stand for."""
        return Options(
            steps=frozenset(name for name in STEPS if getattr(self, name)),
            search_corrected=self.search_corrected,
            search_expanded=self.search_expanded,
            default_language=self.default_language,
        )
