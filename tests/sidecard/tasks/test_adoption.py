"""Taking over tasks: a few at a time."""

import asyncio

from sidecard.tasks.adoption import AT_ONCE
from sidecard.testing import MemoryStore, started
from tests.sidecard.tasks.shop import Shop, said, send, settled, until


class Busy(MemoryStore):
    """Counts who reads at once, and takes its time."""

    def __init__(self):
        super().__init__()
        self.reading = self.most = 0

    async def read(self, keys):
        self.reading += any(key.startswith("log:") for key in keys)
        self.most = max(self.most, self.reading)
        for _ in range(5):
            await asyncio.sleep(0)
        self.reading -= any(key.startswith("log:") for key in keys)
        return await super().read(keys)


async def test_many_tasks_are_taken_up_a_few_at_once():
    """However many a dead process leaves, their new owner reads a handful at a time, and serves beside it."""
    shop, store = Shop(), Busy()
    async with started(shop.agent, store) as engine:
        tasks = [await send(engine, shop, "slow", f"m{n}") for n in range(100)]
        await until(lambda: shop.runs == 100)
    store.most, shop.runs = 0, 0
    async with started(shop.agent, store) as engine:
        await until(lambda: shop.runs == 100)
        assert 1 < store.most <= AT_ONCE
        shop.gate.set()
        for task_id in tasks:
            assert said(await settled(engine, task_id)) == "at last"
