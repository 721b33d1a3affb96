"""What the notebook tests share: nbval, and a my_services folder that is not the learner's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workshop import paths

SANITIZE = Path(__file__).with_name("sanitize.cfg")
Nbval = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def my_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `my_services` and a home of its own: no test touches the person's files."""
    monkeypatch.setenv("WORKSHOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WORKSHOP_MY_SERVICES", str(tmp_path / "my_services"))
    return tmp_path / "my_services"


@pytest.fixture
def nbval(tmp_path: Path) -> Nbval:
    """Run `pytest --nbval` on notebooks in a process of its own, strictly."""

    def run(
        *notebooks: Path, environment: dict[str, str] | None = None, timeout: float = 560.0
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "--nbval", *map(str, notebooks)]
        command += ["--nbval-sanitize-with", str(SANITIZE), "--nbval-cell-timeout", "60"]
        command += ["-p", "no:cacheprovider", "-q", "--color=no", "--durations=0"]
        own = {"WORKSHOP_MY_SERVICES": str(tmp_path / "my_services"), "PYTEST_ADDOPTS": ""}
        return subprocess.run(
            command,
            cwd=paths.ROOT,
            env={**os.environ, **(environment or {}), **own},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
