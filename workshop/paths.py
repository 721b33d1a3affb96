"""Where things lie. Everything the workshop writes is under one folder, `WORKSHOP_HOME`."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository: services run with it as their working folder."""


def home() -> Path:
    """`WORKSHOP_HOME`, by default `.workshop` in the repository."""
    return Path(os.environ.get("WORKSHOP_HOME") or ROOT / ".workshop").absolute()


def models_dir() -> Path:
    """Model folders, by name. `WORKSHOP_MODELS_DIR` lets several homes share one."""
    return Path(os.environ.get("WORKSHOP_MODELS_DIR") or home() / "models").absolute()


def data_dir() -> Path:
    return home() / "data"


def run_dir() -> Path:
    return home() / "run"


def logs_dir() -> Path:
    return home() / "logs"
