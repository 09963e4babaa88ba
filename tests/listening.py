"""Servers that tests start, on free ports of 127.0.0.1; and what they say to bytes that no client would send."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvicorn

from tests.waiting import until


@contextlib.asynccontextmanager
async def serving(server: uvicorn.Server) -> AsyncIterator[int]:
    """Serves on a free port during the block, and gives it."""
    server.config.port = 0
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done())
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def end_of(reader: asyncio.StreamReader, seconds: float = 10) -> bytes:
    """All that comes until the other side closes, nothing when it breaks off. Raises TimeoutError."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(seconds):
            return await reader.read()
    return b""


async def exchange(port: int, *pieces: bytes) -> bytes:
    """What a server answers to bytes, up to where it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    answer = await end_of(reader)
    writer.close()
    return answer
