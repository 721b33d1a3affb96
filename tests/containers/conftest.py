"""Containers on a real engine. Without one they are skipped, with one line that says why.

`WORKSHOP_CONTAINERS=required` makes a missing engine a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workshop import containers, first_run, paths, system
from workshop.errors import WorkshopError

ROOT = Path(__file__).parents[2]
IMAGES = sorted(path.parent.name for path in (ROOT / "services").glob("*/Dockerfile"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "engine" in item.fixturenames:
            item.add_marker(pytest.mark.containers)


@pytest.fixture(scope="session")
def engine() -> Any:
    try:
        containers.compose_command()
        return containers.engine()
    except WorkshopError as error:
        if os.environ.get("WORKSHOP_CONTAINERS") == "required":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def build(engine: Any) -> Callable[[str], str]:
    """Build the image of a service, if a layer of it changed; gives its id."""

    def run(name: str, root: Path = ROOT) -> str:
        kind = {} if containers.has_buildx() else {"DOCKER_BUILDKIT": "0"}
        command = ["docker", "build", "--quiet", "--file", f"services/{name}/Dockerfile"]
        command += ["--build-arg", "STORE=edge"] if name == "dense_retrieval" else []
        done = subprocess.run(
            [*command, "--tag", f"rag-workshop/{name}:test", "."],
            cwd=root,
            env={**os.environ, **kind},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return str(engine.images.get(f"rag-workshop/{name}:test").id)

    return run


@pytest.fixture(scope="session")
def lab(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[containers.Containers]:
    """The whole system in containers, healthy, in a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKSHOP_MODELS_DIR", str(paths.models_dir()))
        patch.setenv("WORKSHOP_HOME", str(tmp_path_factory.mktemp("containers")))
        first_run.ensure_models()
        base = system.free_port_base()
        try:
            yield containers.start(base, step=None, dev=False, say=print, llm=first_run.llm())
        finally:
            if here := containers.running():
                here.shutdown(volumes=True)


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
