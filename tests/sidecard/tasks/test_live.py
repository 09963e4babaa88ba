"""One task in memory: nothing of it is told before it is stored, and one entry at a time is on its way."""

import asyncio

import pytest
from a2a.types import TaskState

from sidecard.tasks.entry import log_key
from sidecard.testing import FakeWebhooks, MemoryStore, message, started
from tests.sidecard.tasks.shop import Shop, send, ticks, until
from tests.sidecard.tasks.test_outbox import begin, webhook

S = TaskState


class Gated(MemoryStore):
    """Holds writes back while `open` is not set."""

    def __init__(self):
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = []

    async def write(self, creates, upserts, deletes=()):
        keys = [key for key, _ in creates]
        self.waiting.append(keys)
        await self.open.wait()
        self.waiting.remove(keys)
        await super().write(creates, upserts, deletes)


async def test_nothing_leaves_before_its_entry_is_stored():
    """Neither a response, nor an event of a stream, nor a webhook; then all of them do."""
    shop, store, webhooks = Shop(), Gated(), FakeWebhooks()
    async with started(shop.agent, store, webhooks=webhooks) as engine:
        task_id = await begin(engine, shop, "slow", hook=webhook())
        await until(lambda: shop.runs and not engine.outbox)
        async with engine.borrow(task_id) as live:
            told = []

            async def read():
                async for event in live.follow():
                    told.append(event)  # noqa: PERF401 -- one by one, as they come

            reading, response = asyncio.create_task(read()), asyncio.create_task(live.settled())
            await until(lambda: told)
            seen, received = len(told), len(webhooks.received)
            store.open.clear()
            shop.gate.set()
            accepted = asyncio.create_task(send(engine, shop, "buy", "m2"))
            await until(lambda: live.ended and store.waiting)
            await ticks(100)
            assert live.folded.state == S.TASK_STATE_WORKING
            assert (len(told), len(webhooks.received)) == (seen, received)
            assert not response.done()
            assert not accepted.done()
            assert shop.effects == 0, "nor is an effect had"
            store.open.set()
            await asyncio.gather(reading, response, accepted)
            assert told[-1].status.state == S.TASK_STATE_COMPLETED
            await until(lambda: len(webhooks.received) > received and shop.effects)


async def test_one_entry_of_a_task_is_on_its_way_at_a_time():
    """What comes meanwhile shares the next one; each is in one entry, in order."""
    shop, store = Shop(), Gated()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        await until(lambda: shop.runs)
        async with engine.borrow(task_id) as live:
            await live.stored()
            n = live.folded.n
            store.open.clear()
            for number in range(30):
                live.append(live.status(S.TASK_STATE_WORKING, message(f"{number}").SerializeToString()))
                await ticks(3)
                own = [key for keys in store.waiting for key in keys if key.startswith(f"log:{task_id}")]
                assert own == [log_key(task_id, n + 1)]
            store.open.set()
            await live.stored()
            assert live.folded.n == n + 2
            said = [m.parts[0].text for m in [*live.folded.task.history[1:], live.folded.task.status.message]]
            assert said == [str(number) for number in range(30)]


@pytest.mark.parametrize("skill", ["buy", "order"])
async def test_an_effect_begins_only_when_its_beginning_is_stored(skill):
    """Else a crash could not tell whether it happened."""
    shop, store = Shop(), Gated()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, skill)
        async with engine.borrow(task_id) as live:
            store.open.clear()
            await until(lambda: store.waiting)
            await ticks(100)
            assert shop.effects == 0
            assert shop.keys == []
            store.open.set()
            await live.settled()
            assert shop.effects or shop.keys
