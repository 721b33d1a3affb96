"""Faults between containers: a network that is cut, and a proxy on the network."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import catalogue, fault_proxy
from .containers import Containers

_PORT = 8099


@contextmanager
def cut(here: Containers, name: str) -> Iterator[None]:
    """`name` is on none of its networks."""
    container = here.known(name)["container"]
    networks = container.attrs["NetworkSettings"]["Networks"]
    for network in networks:
        container.client.networks.get(network).disconnect(container)
    try:
        yield
    finally:
        for network, was in networks.items():
            container.client.networks.get(network).connect(container, aliases=was["Aliases"])


@contextmanager
def late(here: Containers, name: str, seconds: float) -> Iterator[str]:
    """The URL, for other containers, of a proxy that passes each call to `name` on so much later.

    It runs in `name`'s own image: that has Python and the parser that the proxy needs.
    """
    container = here.known(name)["container"]
    networks = list(container.attrs["NetworkSettings"]["Networks"])
    offset = catalogue.entry_of(name).offset
    target = f"http://{name}:{catalogue.DEFAULT_PORT_BASE + (offset or 0)}"
    source = Path(fault_proxy.__file__)
    proxy = container.client.containers.create(
        container.attrs["Config"]["Image"],
        entrypoint=["python", f"/tmp/{source.name}", target, str(_PORT), str(seconds)],
        name=f"{container.name}-late",
        network=networks[0],
        healthcheck={"test": ["NONE"]},
    )
    try:
        proxy.put_archive("/tmp", _tar(source))
        proxy.start()
        yield f"http://{proxy.name}:{_PORT}"
    finally:
        proxy.remove(force=True)


def _tar(file: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(file, arcname=file.name)
    return packed.getvalue()
