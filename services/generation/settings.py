"""Settings of generation, read from GENERATION_* environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.chassis import ServiceSettings

from .domain import PROMPTS

ProviderName = Literal["llm-server", "openai", "langchain"]


class Route(BaseModel):
    """Where requests for one model name go."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    provider: ProviderName
    model: str = Field(
        "", max_length=200, description="name the provider knows; for langchain `provider:model`"
    )
    url: str = Field("", description="base URL, up to and with /v1 (llm-server, openai)")
    api_key: SecretStr = Field(SecretStr(""), description="sent as a bearer token (openai)")
    options: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of `init_chat_model` (langchain)"
    )
    concurrency: int = Field(
        4, ge=1, le=1000, description="answers generated or waiting at this provider at once"
    )

    @model_validator(mode="after")
    def _complete(self) -> Route:
        if self.provider == "langchain" and not self.model:
            raise ValueError("langchain needs a model, such as openai:gpt-4o-mini")
        if self.provider == "openai" and not (self.model and self.url):
            raise ValueError("openai needs a url and a model")
        if self.provider == "llm-server" and not self.url:
            raise ValueError("llm-server needs a url")
        return self


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(
        env_prefix="GENERATION_",
        extra="ignore",
        env_ignore_empty=True,
        protected_namespaces=(),
    )
    name: ClassVar[str] = "generation"

    port: int = 8009
    default_deadline: float = Field(
        120.0, gt=0, description="time budget of a request that brings none"
    )

    provider: ProviderName = Field("llm-server", description="who answers by default")
    llm_url: str = Field(
        "http://127.0.0.1:8020/v1", description="base URL of the default provider, with /v1"
    )
    model: str = Field(
        "", max_length=200, description="model name at the default provider; llm-server needs none"
    )
    api_key: SecretStr = Field(SecretStr(""), description="key of the default provider")
    options: dict[str, Any] = Field(
        default_factory=dict, description="JSON: further arguments of `init_chat_model`"
    )
    concurrency: int = Field(
        4,
        ge=1,
        le=1000,
        description="answers generated or waiting at the default provider; one more gets a 503",
    )
    routes: dict[str, Route] = Field(
        default_factory=dict,
        description="JSON: requested model name to where it goes, beside the default",
    )
    fallbacks: dict[str, list[str]] = Field(
        default_factory=dict,
        description="JSON: model name to those that stand in for it, in order, while it fails",
    )

    prompts_dir: Path = Field(PROMPTS, description="folder of <template>/<version>/<language>.toml")
    prompt_versions: dict[str, str] = Field(
        default_factory=dict,
        description="JSON: template to the version used when a request names none; "
        "default: the newest",
    )
    temperature: float = Field(0.0, ge=0, le=2, description="used when a request gives none")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="used when a request gives none")
    max_tokens: int = Field(256, ge=1, le=8192, description="used when a request gives none")
    timeout: float = Field(60.0, gt=0, description="longest answer, in seconds")
    retries: int = Field(
        1, ge=0, le=5, description="further tries while no token has come; none after the first"
    )
    cache_bytes: int = Field(
        16_000_000, ge=0, description="size of the prompt cache in bytes; 0: none"
    )
    warm_prompts: bool = Field(
        True, description="have the LLM server read the fixed part of each prompt at start"
    )

    @model_validator(mode="after")
    def _default_route_is_complete(self) -> Settings:
        self.default_route  # noqa: B018 - built for its checks
        return self

    @model_validator(mode="after")
    def _fallbacks_are_known(self) -> Settings:
        known = {"default", *self.routes}
        for name, others in self.fallbacks.items():
            if unknown := {name, *others} - known:
                there_is = ", ".join(sorted(known))
                raise ValueError(f"fallbacks: no model {min(unknown)}; known: {there_is}")
            if name in others:
                raise ValueError(f"fallbacks: {name} cannot stand in for itself")
        return self

    @property
    def default_route(self) -> Route:
        return Route(
            provider=self.provider,
            model=self.model,
            url="" if self.provider == "langchain" else self.llm_url,
            api_key=self.api_key,
            options=self.options,
            concurrency=self.concurrency,
        )
