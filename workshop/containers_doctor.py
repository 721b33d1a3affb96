"""`workshop doctor --containers`: what the container form needs, and what to do where it lacks."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from . import catalogue, containers, paths
from .doctor import FAIL, HINT, OK, Check
from .errors import WorkshopError

_PYTHON = "python:3.11-slim-bookworm"
_MEMORY, _DISK = 5.5e9, 8e9
"""The containers' own use with the small model; images, volumes and the builder's cache."""


_INSTEAD = {
    "qdrant/": "dense_retrieval runs on its embedded store instead",
    "prom/": "only the profile observability needs it",
    "": "compose/offline/build.sh builds it from distribution packages",
}
"""What to do without an image, by the beginning of its name."""


def run() -> Iterator[Check]:
    """Every check, one after the other; without an engine there is nothing more to ask."""
    try:
        docker = containers.engine()
    except WorkshopError as error:
        yield Check("engine", FAIL, str(error))
        return
    info = docker.info()
    yield engine(info)
    yield compose()
    yield builder()
    yield memory(info)
    yield disk(info)
    yield port()
    yield from images(docker)


def engine(info: dict[str, Any]) -> Check:
    text = f"{info['ServerVersion']} on {info['OperatingSystem']}, {info['NCPU']} cores"
    if info.get("OSType") != "linux":
        return Check("engine", FAIL, f"{text}: switch Docker Desktop to Linux containers")
    return Check("engine", OK, text)


def compose() -> Check:
    try:
        command = containers.compose_command()
    except WorkshopError as error:
        return Check("compose", FAIL, str(error))
    version = ".".join(map(str, containers.compose_version(command)))
    return Check("compose", OK, f"{version} ({' '.join(command)})")


def builder() -> Check:
    if containers.has_buildx():
        return Check("builder", OK, "BuildKit")
    return Check("builder", HINT, "no buildx: the engine's classic builder, one image at a time")


def memory(info: dict[str, Any]) -> Check:
    total = info["MemTotal"] / 1e9
    if total * 1e9 < _MEMORY:
        more = "Docker Desktop: Settings, Resources, Memory"
        return Check("memory", FAIL, f"the engine has {total:.1f} GB, 5.5 are needed ({more})")
    return Check("memory", OK, f"the engine has {total:.1f} GB")


def disk(info: dict[str, Any]) -> Check:
    root = Path(info["DockerRootDir"])
    if not root.exists():  # inside Docker Desktop's own machine
        return Check("disk", HINT, "8 GB are needed in Docker's disk; `docker system df` shows it")
    free = shutil.disk_usage(root).free
    severity = OK if free > _DISK else FAIL
    return Check("disk", severity, f"{free / 1e9:.1f} GB free at {root}, 8 are needed")


def port() -> Check:
    gateway = catalogue.default_port_base()
    if containers.running():
        return Check("port", OK, f"the workshop's own containers use {gateway}")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", gateway)):
            return Check("port", OK, f"{gateway} is free")
    return Check("port", FAIL, f"{gateway} is taken: `workshop up --containers --port-base 9000`")


def images(docker: Any) -> Iterator[Check]:
    """Each image that comes from a registry: here already, to be had, or not."""
    from docker.errors import DockerException

    for name in [_PYTHON, *_public()]:
        if docker.images.list(name):
            yield Check("image", OK, f"{name} is here")
            continue
        try:
            docker.images.get_registry_data(name)
            yield Check("image", OK, f"{name} will be pulled")
        except DockerException:
            instead = next(text for start, text in _INSTEAD.items() if name.startswith(start))
            yield Check("image", HINT, f"{name} cannot be pulled: {instead}")


def _public() -> list[str]:
    """What compose.yaml names, with the defaults of its variables."""
    services = yaml.safe_load((paths.ROOT / "compose" / "compose.yaml").read_text())["services"]
    named = {
        s["image"].partition(":-")[2].rstrip("}") for s in services.values() if "build" not in s
    }
    return sorted(name for name in named if "/" in name or ":" in name)
