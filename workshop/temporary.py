"""A whole system of its own for a test or a measurement, gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import catalogue, models, paths, system
from .errors import WorkshopError

_PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class TemporarySystem:
    """Addresses of a running system. `home` is its `WORKSHOP_HOME`."""

    base: int
    home: Path
    environment: Mapping[str, str]

    def url(self, name: str) -> str:
        """`http://127.0.0.1:PORT` of a service."""
        return f"http://127.0.0.1:{catalogue.ports(self.base, self.environment)[name]}"

    def workshop(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this system."""
        return subprocess.run(
            [sys.executable, "-m", "workshop.cli", *arguments],
            cwd=paths.ROOT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )


@contextmanager
def temporary_system(environment: Mapping[str, str] | None = None) -> Iterator[TemporarySystem]:
    """Start everything on free ports with the handbook indexed; the models are shared.

    `environment` adds settings, such as `GENERATION_CACHE_ENTRIES`. Raises WorkshopError with
    what `workshop up` said.
    """
    with tempfile.TemporaryDirectory(prefix="workshop-system-") as folder:
        base = system.free_port_base()
        settings = {
            **os.environ,
            "WORKSHOP_HOME": folder,
            "WORKSHOP_MODELS_DIR": str(models.models_folder()),
            "WORKSHOP_PORT_BASE": str(base),
            **(environment or {}),
        }
        here = TemporarySystem(base, Path(folder), settings)
        try:
            started = here.workshop("up")
            if started.returncode:
                raise WorkshopError(
                    "The system did not start: " + (started.stderr or started.stdout).strip(),
                    "Run `workshop doctor`.",
                )
            yield here
        finally:
            here.workshop("down")
