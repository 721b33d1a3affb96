from __future__ import annotations

import asyncio

import uvicorn
from fastapi import APIRouter

from services.chassis import ServiceSettings, create_service
from services.chassis.serve import _Server


async def test_who_connected_before_the_end_is_served_and_told_to_let_go():
    app = create_service(ServiceSettings(), title="t", description="d", router=APIRouter())
    server = _Server(uvicorn.Config(app, port=0, log_config=None))
    server.app, server.notice, server.handed_over = app, 0.05, False
    task = asyncio.create_task(server.serve())
    for _ in range(1000):
        if server.started:
            break
        await asyncio.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    app.state.readiness.drain()
    server.should_exit = True  # SIGTERM itself would end this process, too
    for _ in range(1000):
        if not await accepts(address):
            break
        await asyncio.sleep(0.01)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in head
    writer.close()
    await task


async def accepts(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except OSError:
        return False
    writer.close()
    return True
