"""How the apps listen: what is refused before any app sees it."""

import asyncio
import contextlib

import pytest
from starlette.responses import PlainTextResponse

from sidecard.http_server import MAX_HEAD_BYTES, http_server
from sidecard.settings import Settings


@pytest.fixture
async def port():
    server = http_server(PlainTextResponse("in"), Settings(app_id="shop"))
    server.config.port = 0  # a free one
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 -- uvicorn has no event for it
            await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def exchange(port, *pieces):
    """What the server answers to bytes, up to where it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            answer = await reader.read()
    writer.close()
    return answer


async def test_requests_come_in(port):
    """One after the other on a connection; what bounds the head does not bound bodies."""
    body = b"x" * (2 * MAX_HEAD_BYTES)
    first = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert (await exchange(port, first, last)).count(b"200 OK") == 2


@pytest.mark.parametrize("piece", [b"y" * 1_000, b"y" * 1_000 + b"\r\nx: "], ids=["one header", "many headers"])
async def test_headers_without_end_are_cut(port, piece):
    """An answer in plain words and a closed connection, instead of memory for whatever anybody sends."""
    answer = await exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\nx: ", *[piece] * 2_000)
    assert b"200 OK" not in answer
    assert answer == b"" or b"larger than 65536 bytes" in answer
