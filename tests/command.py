"""The command line, as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from workshop import paths


def workshop(
    environment: Mapping[str, str], *arguments: str, timeout: float = 110.0
) -> subprocess.CompletedProcess[str]:
    """Run `workshop …` with these variables added to the environment."""
    return subprocess.run(
        [sys.executable, "-m", "workshop.cli", *arguments],
        cwd=paths.ROOT,
        env={**os.environ, **environment, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
