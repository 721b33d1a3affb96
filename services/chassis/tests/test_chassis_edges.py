"""What only a real socket shows: heads that do not end, and who sends too much reads why."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvicorn
from fastapi import APIRouter

from services.chassis import ApiModel, ServiceSettings, create_service
from services.chassis.head_limits import HeadLimitedProtocol

HEAD = b"POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


class Impatient(HeadLimitedProtocol):
    seconds = 0.3


class Echo(ApiModel):
    text: str


@pytest.fixture
async def port():
    router = APIRouter()

    @router.post("/echo")
    async def echo(body: Echo) -> Echo:
        return body

    settings = ServiceSettings(max_body_bytes=1000)
    app = create_service(settings, title="t", description="d", router=router)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, http=Impatient))
    task = asyncio.create_task(server.serve())
    for _ in range(1000):
        if server.started and app.state.readiness.ok:
            break
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


@asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()


async def status(reader):
    return int((await asyncio.wait_for(reader.readline(), 5)).split()[1])


@pytest.mark.parametrize("sent", [b"", HEAD])
async def test_a_head_that_does_not_end_is_refused_in_time(port, sent):
    async with connected(port) as (reader, writer):
        writer.write(sent)
        assert await status(reader) == 408
        await asyncio.wait_for(reader.read(), 1)  # and the connection ends


async def test_an_endless_head_is_refused(port):
    async with connected(port) as (reader, writer):
        writer.write(HEAD + b"x-more: " + b"x" * 70_000)
        assert await status(reader) == 431


async def test_requests_on_one_connection_each_have_their_time(port):
    body = b'{"text": "x"}'
    request = HEAD + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    async with connected(port) as (reader, writer):
        for _ in range(3):
            writer.write(request)
            assert await status(reader) == 200
            await reader.readuntil(body.replace(b" ", b""))
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.4)  # longer than a head may take: idle is not slow
        writer.write(request)
        assert await status(reader) == 200


async def test_who_sends_too_much_can_read_why(port):
    """Sent in full before the answer is read: a reset connection would have dropped it."""
    async with connected(port) as (reader, writer):
        writer.write(HEAD + b"content-length: 3000000\r\n\r\n")
        for _ in range(30):
            writer.write(b" " * 100_000)
            await writer.drain()
            await asyncio.sleep(0.005)
        assert await status(reader) == 413
