"""What `workshop up` leaves after its first start: every store, with the handbook in it.

To read the handbook takes a minute or two of both processors, so it is done once for each state of
the code, and each system of the tests begins with a copy.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

import httpx
from filelock import FileLock

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
            _until_encoded(port_base)
            _workshop(new, "down")
            new.rename(at)
    return at / "data"


def _state() -> str:
    """Of all that decides what the stores hold."""
    code = paths.digest("requirements.lock", "models.toml", "services", "workshop", "handbook")
    settings = sorted(pair for pair in os.environ.items() if pair[0].startswith(PREFIXES))
    chosen = repr([code, first_run.needed_models(), settings])
    return hashlib.sha256(chosen.encode()).hexdigest()[:16]


def _until_encoded(port_base: int) -> None:
    """Reranking encodes ahead what was ingested, and what it does not get to is not made up for."""
    port = port_base + next(e.offset or 0 for e in catalogue.CATALOGUE if e.name == "reranking")
    encoded, since = -1.0, time.monotonic()
    while time.monotonic() - since < 10.0:
        said = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        found = re.search(r"^reranking_passages_encoded_total (\S+)", said, re.MULTILINE)
        assert found, "reranking has no such metric"
        if float(found[1]) > encoded:
            encoded, since = float(found[1]), time.monotonic()
        time.sleep(0.5)


def _workshop(home: Path, *arguments: str) -> None:
    environment = {
        "WORKSHOP_HOME": str(home),
        "WORKSHOP_MODELS_DIR": str(paths.models_dir()),
        "WORKSHOP_STOP_WITH": str(os.getpid()),
    }
    done = command.workshop(environment, *arguments, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
