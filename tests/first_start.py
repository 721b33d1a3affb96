"""What `workshop up` leaves after its first start: every store, with the handbook in it.

To read the handbook takes a minute or two of both processors, so it is done once for each state of
the code, and each system of the tests begins with a copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

from filelock import FileLock

from services.ingestion.settings import Settings
from services.ingestion.store import Store
from tests import command
from workshop import catalogue, first_run, paths

FOLDER = paths.ROOT / ".workshop" / "first_start"
PREFIXES = tuple(entry.prefix for entry in catalogue.CATALOGUE if entry.prefix)


def data(port_base: int) -> Path:
    """The data folder of that start, made on ports from `port_base` on if there is none."""
    at = FOLDER / _state()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):
        if not at.exists():
            for old in FOLDER.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            new = FOLDER / "new"
            _workshop(new, "up", "--port-base", str(port_base))
            _until_encoded(new)
            _workshop(new, "down")
            new.rename(at)
    return at / "data"


def _state() -> str:
    """Of all that decides what the stores hold."""
    code = paths.digest("requirements.lock", "models.toml", "services", "workshop", "handbook")
    settings = sorted(pair for pair in os.environ.items() if pair[0].startswith(PREFIXES))
    chosen = repr([code, first_run.needed_models(), settings])
    return hashlib.sha256(chosen.encode()).hexdigest()[:16]


def _until_encoded(home: Path) -> None:
    """Reranking encodes ahead what was ingested; a copy would go on with what is left of it."""
    store = Store(Settings(data_dir=home / "data").sqlalchemy_url)
    while store.ahead(1):
        time.sleep(0.5)
    store.close()


def _workshop(home: Path, *arguments: str) -> None:
    environment = {
        "WORKSHOP_HOME": str(home),
        "WORKSHOP_MODELS_DIR": str(paths.models_dir()),
        "WORKSHOP_STOP_WITH": str(os.getpid()),
    }
    done = command.workshop(environment, *arguments, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
