"""Settings of llm_server, read from LLM_* environment variables.

Not on the chassis: this process is llama.cpp's server and not a FastAPI service, and importing
the web framework would cost it memory for nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_MODEL = Path(".workshop/models/qwen2.5-coder-0.5b-instruct")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="LLM_", extra="ignore", env_ignore_empty=True, protected_namespaces=()
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8020, ge=1, le=65535, description="port to listen on")
    model_path: Path = Field(
        DEFAULT_MODEL, description="a .gguf file, or a folder that holds exactly one"
    )
    threads: int = Field(
        os.cpu_count() or 1,
        ge=1,
        le=512,
        description="threads that read prompts, and write answers side by side",
    )
    answer_threads: int = Field(
        max(1, (os.cpu_count() or 1) // 2),
        ge=1,
        le=512,
        description="threads that write one answer: a token at a time, memory is the limit",
    )
    gpu_layers: int = Field(
        -1, ge=-1, description="layers on a GPU, where the build has one; -1: as many as fit"
    )
    slots: int = Field(
        2, ge=1, le=64, description="answers generated at the same time; each keeps its last prompt"
    )
    context: int = Field(
        4096,
        ge=512,
        le=1_000_000,
        description="tokens of prompts and answers, for all slots together; one may use them all",
    )
    max_answer_tokens: int = Field(
        1024, ge=1, description="ceiling for requests that set no max_tokens"
    )
    prompt_cache_mb: int = Field(
        256,
        ge=0,
        description="RAM for states of earlier prompts; 0: each slot keeps its last one",
    )
    drain_timeout: float = Field(
        5.0, ge=0, description="time that answers in flight get to finish after SIGTERM, in seconds"
    )
