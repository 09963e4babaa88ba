"""The tasks in a replica's memory: who stops waiting for one, and who is told that it won't come."""

import asyncio

import pytest

from sidecard.errors import StoreUnavailable
from sidecard.testing import MemoryStore, started
from tests.sidecard.tasks.shop import Shop, ticks, until


class Silent(MemoryStore):
    """Never answers who reads a task."""

    async def read(self, keys):
        if any(key.startswith("log:") for key in keys):
            await asyncio.Event().wait()
        return await super().read(keys)


@pytest.mark.parametrize("canceled", [True, False], ids=["canceled too", "waiting"])
async def test_who_reads_a_task_when_the_agent_stops_is_told_unless_it_is_canceled_itself(canceled):
    """One that took its own cancel for the agent's would try again, and hold up the stop for ever."""
    async with started(Shop().agent, Silent()) as engine:

        async def read():
            async with engine.borrow("t"):
                pass

        reading = asyncio.create_task(read())
        await ticks(5)
        closing = asyncio.create_task(engine._lives.close())
        loading = engine._lives._loading["t"]
        await until(lambda: loading.cancelled() or not canceled)
        if canceled:
            reading.cancel()
        await closing
        with pytest.raises(asyncio.CancelledError if canceled else StoreUnavailable):
            await reading
