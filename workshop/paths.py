"""Where things lie. Everything the workshop writes is under one folder, `WORKSHOP_HOME`."""

from __future__ import annotations

import hashlib
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


def digest(*tops: str) -> str:
    """SHA-256 of files and folders of the repository, their tests left out."""
    total = hashlib.sha256()
    files = [file for top in tops for file in (ROOT / top, *(ROOT / top).rglob("*"))]
    for file in sorted(files):
        inside = file.relative_to(ROOT)
        if file.is_file() and not {"tests", "__pycache__"} & set(inside.parts):
            total.update(f"{inside}".encode() + file.read_bytes())
    return total.hexdigest()


def replace_file(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write `text` to `path` in one step: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
