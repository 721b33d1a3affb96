"""What `workshop up` leaves after its first start: every store, with the handbook in it.

To read the handbook takes a minute or two of both processors, so it is done once for each state of
the code, and each system of the tests begins with a copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from workshop import catalogue, first_run, paths

FOLDER = paths.ROOT / ".workshop" / "first_start"
PREFIXES = ("WORKSHOP_LLM", *(entry.prefix for entry in catalogue.CATALOGUE if entry.prefix))


def home() -> Path:
    """The home folder of that start, whether it exists or not."""
    digest = hashlib.sha256()
    for name in ("handbook", "services", "workshop", "requirements.lock", "models.toml"):
        top = paths.ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(paths.ROOT)} {path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
    digest.update(repr(first_run.needed_models()).encode())
    settings = sorted(pair for pair in os.environ.items() if pair[0].startswith(PREFIXES))
    digest.update(repr(settings).encode())
    return FOLDER / digest.hexdigest()[:16]


def data(port_base: int) -> Path:
    """The data folder of that start, made on ports from `port_base` on if there is none."""
    at = home()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):
        if not at.exists():
            for old in FOLDER.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            new = FOLDER / "new"
            _workshop(new, "up", "--port-base", str(port_base))
            _workshop(new, "down")
            new.rename(at)
    return at / "data"


def keep(folder: Path) -> None:
    """Make a folder of a system's data part of that start, if there was one."""
    at = home() / "data"
    if at.exists() and not (at / folder.name).exists():
        shutil.copytree(folder, at / f"{folder.name}.new")
        (at / f"{folder.name}.new").rename(at / folder.name)


def _workshop(at: Path, *arguments: str) -> None:
    environment = {
        "WORKSHOP_HOME": str(at),
        "WORKSHOP_MODELS_DIR": str(paths.models_dir()),
        "WORKSHOP_STOP_WITH": str(os.getpid()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "workshop.cli", *arguments],
        cwd=paths.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
