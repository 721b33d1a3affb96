"""Helpers for tests and notebooks: an app in this process, with its resources up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
