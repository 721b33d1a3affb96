"""Containers on a real engine. Without one they are skipped, with one line that says why."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workshop import client, containers
from workshop.errors import WorkshopError

ROOT = Path(__file__).parents[2]
IMAGES = sorted(path.parent.name for path in (ROOT / "services").glob("*/Dockerfile"))


@pytest.fixture(scope="session")
def build(engine: Any) -> Callable[..., str]:
    """Build the image of a service, if a layer of it changed; gives its id."""

    def run(name: str, root: Path = ROOT, store: str = "edge", classic: bool = False) -> str:
        kind = {"DOCKER_BUILDKIT": "0"} if classic or not containers.has_buildx() else {}
        tag = f"rag-workshop/{name}:test{'-classic' if classic else ''}"
        command = ["docker", "build", "--quiet", "--file", f"services/{name}/Dockerfile"]
        command += ["--build-arg", f"STORE={store}"] if name == "dense_retrieval" else []
        done = subprocess.run(
            [*command, "--tag", tag, "."],
            cwd=root,
            env={**os.environ, **kind},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return str(engine.images.get(tag).id)

    return run


@pytest.fixture(scope="session")
def asked(lab: containers.Containers) -> containers.Containers:
    """With the page that answers the README's question, ingested through the gateway."""
    pages = [page for page in client.handbook() if page.id == "en/retries-and-circuit-breakers"]
    report = asyncio.run(client.ingest(lab.url("gateway"), pages))
    assert report.failed == []
    return lab


@pytest.fixture(scope="session")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A compose file as compose resolves it; needs no engine."""
    secrets = tmp_path_factory.mktemp("secrets")
    subprocess.run(["sh", str(ROOT / "compose" / "secrets.sh"), str(secrets)], check=True)

    try:
        compose = containers.compose_command()
    except WorkshopError as error:
        pytest.skip(str(error))

    def read(*files: str, profiles: tuple[str, ...] = ()) -> dict[str, Any]:
        command = compose
        for file in files:
            command = [*command, "--file", str(ROOT / "compose" / file)]
        for profile in profiles:
            command = [*command, "--profile", profile]
        done = subprocess.run(
            [*command, "config", "--format", "json"],
            env={**os.environ, "WORKSHOP_SECRETS_DIR": str(secrets)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return read
