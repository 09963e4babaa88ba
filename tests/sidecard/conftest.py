"""Real servers on this machine."""

import asyncio
import contextlib

import pytest
import uvicorn


@pytest.fixture
async def listen():
    """Serves an ASGI app on a free port of 127.0.0.1 until the test ends; returns the port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app) -> int:
            config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())

            async def stop():
                server.should_exit = True
                await serving

            stack.push_async_callback(stop)
            while not server.started:  # noqa: ASYNC110 -- uvicorn has no event to wait for
                await asyncio.sleep(0.001)
            return server.servers[0].sockets[0].getsockname()[1]

        yield start
