"""Settings every service has. A service subclasses this and adds its own fields.

Each field is read from the environment variable PREFIX + FIELD (upper case), for example
`EMBEDDING_PORT`; a wrong value stops the service at start with the variable's name. What is secret
may lie in a file of that name in /run/secrets instead, where Docker and Kubernetes put secrets.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS = Path(os.environ.get("SECRETS_DIR", "/run/secrets"))


class ServiceSettings(BaseSettings):
    """Common settings. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, secrets_dir=SECRETS if SECRETS.is_dir() else None
    )

    name: ClassVar[str] = "service"

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    data_dir: Path = Field(
        Path(".workshop/data"), description="folder this service may write to, and no other"
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    max_concurrency: int = Field(
        64, ge=1, description="requests worked on at once; one more is refused with 503"
    )
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="larger bodies are refused (413)")
    head_time: float = Field(
        10.0, gt=0, description="a request's head that takes longer to arrive is refused (408)"
    )
    default_deadline: float = Field(
        30.0, gt=0, description="time budget of a request that brings none"
    )
    drain_notice: float = Field(
        0.3, ge=0, description="time after SIGTERM in which callers let go and all is still served"
    )
    drain_timeout: float = Field(
        10.0, ge=0, description="time that requests in flight get to finish after SIGTERM"
    )

    @property
    def home(self) -> Path:
        """This service's own folder under `data_dir`, created on first use."""
        path = self.data_dir / self.name
        path.mkdir(parents=True, exist_ok=True)
        return path


def explain_settings_error(error: ValidationError, prefix: str) -> str:
    """One line a variable: which one is wrong, and why."""
    lines = []
    for item in error.errors():
        field = "_".join(str(part) for part in item["loc"]).upper()
        lines.append(f"  {prefix}{field}: {item['msg']} (got {item['input']!r})")
    return "\n".join(lines)
