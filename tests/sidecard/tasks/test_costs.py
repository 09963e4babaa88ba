"""What tasks cost: operations and bytes at the store, and that nothing grows with the length of a task or a list."""

import asyncio
import gc
import math
import time
import tracemalloc

import pytest
from a2a.types import ListTasksRequest, TaskState

from bench.ours import errands
from sidecard import Task
from sidecard.tasks import pending as pending_module
from sidecard.tasks.act import Act
from sidecard.tasks.entry import head_key, log_key
from sidecard.tasks.listing import AT_ONCE, list_tasks
from sidecard.tasks.loading import load, read_log
from sidecard.tasks.slots import Sweep
from sidecard.testing import FakeAgents, MemoryStore, caller, ended, message, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, idle, send, settled, text_of, text_told, until

S = TaskState


class CountingStore(MemoryStore):
    """Counts reads, and the bytes that are written; keeps the keys that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.asked = []
        self.bytes = 0

    async def read(self, keys):
        self.reads += 1
        self.asked += keys
        return await super().read(keys)

    async def write(self, creates, upserts, deletes=()):
        await super().write(creates, upserts, deletes)
        self.bytes += sum(map(len, [*dict(creates).values(), *upserts.values()]))


async def test_the_outcome_of_a_delegation_is_stored_with_the_beginning_of_the_next():
    """Five in a row are one write each, the first's beginning besides: what they gave leaves with what it led to."""
    store, made = CountingStore(), errands()
    agents = FakeAgents({"ours": [ended(f"t{n}", str(n)) for n in range(5)]})
    async with started(made, store, agents) as engine:
        before = store.writes
        task_id = await engine.intake.create(caller(made), "", made.skills["run"], message("hello"))
        task = await settled(engine, task_id)
        assert task.artifacts[0].parts[0].text == "0 1 2 3 4"
        assert store.writes - before == 6
        async with engine.borrow(task_id) as live:
            assert [child.task_id for child in live.folded.children.values()] == [f"t{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("skill", "writes", "most_bytes"),
    [
        ("look", 1, 700),  # its whole life is one entry
        ("buy", 4, 1_500),  # the message; the effect begins; its outcome; the end
        ("order", 4, 1_500),
        ("slow", 3, 1_300),  # the message; working; the end
        ("choose", 3, 2_000),  # the message; working, progress; the question (see below for the rest)
        ("through", 3, 2_000),  # the message; the call begins; its result and the end
        ("nap", 3, 1_500),  # the message; the sleep begins; it is over, and the end
    ],
)
async def test_what_a_task_costs_at_the_store(skill, writes, most_bytes):
    """Transactions until it rests, with everything that belongs to them in the same one."""
    shop, store = Shop(), CountingStore()
    shop.gate.set()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]})
    async with started(shop.agent, store, agents) as engine:
        await settled(engine, await send(engine, shop, "look", "warm-up"))
        before, written, read = store.writes, store.bytes, store.reads
        task_id = await send(engine, shop, skill, "m2")
        await settled(engine, task_id)
        assert store.writes - before <= writes
        assert store.bytes - written < most_bytes
        assert store.reads == read, "nothing is read to write, or to tell the caller"


async def test_what_the_audit_costs_at_the_store():
    """No operation of its own, and few bytes: in the slot's entry, and again in a page of many."""
    shop, store = Shop(), CountingStore()
    async with started(shop.agent, store) as engine:

        async def cost(by: str) -> tuple[int, int]:
            writes, written, reads = store.writes, store.bytes, store.reads
            for n in range(100):
                act = Act("SendMessage", caller=by, identity=f"key:{by}", subject=by, right="scope look")
                sent = message(message_id=f"{by}-{n}", data={"what": "hat"})
                task_id = await engine.intake.create(
                    caller(shop.agent), "", shop.skill("look"), sent, act=act if by else None
                )
                await settled(engine, task_id)
            assert store.reads == reads
            return store.writes - writes, store.bytes - written

        await settled(engine, await send(engine, shop, "look", "warm-up"))
        await engine.journal.sweep(Sweep(checkpoint=True))
        (writes, written), (audited, more) = await cost(""), await cost("ada")
        assert audited == writes
        assert more - written < 100 * 2 * 160


async def test_many_tasks_share_their_writes():
    """A hundred short tasks at once take a few transactions."""
    shop, store = Shop(), CountingStore()
    async with started(shop.agent, store) as engine:
        before = store.writes
        await asyncio.gather(*(send(engine, shop, "look", f"m{n}") for n in range(100)))
        assert store.writes - before < 12


@pytest.mark.parametrize("skill", ["talk", "tell"])
async def test_ten_thousand_chunks_cost_ten_times_a_thousand(skill):
    """Work and bytes grow with the stream, followers included; chunks share entries, and none is lost."""
    measured = []
    for count in (1_000, 10_000) * 3:  # what else the machine does makes single figures larger, and none smaller
        shop, store = Shop(), CountingStore()
        async with started(shop.agent, store) as engine:
            began = time.thread_time()
            task_id = await send(engine, shop, skill, data={"what": "x", "count": count})
            async with engine.borrow(task_id) as live:
                events = [event async for event in live.follow()]
                task = live.folded.public()
            seconds = time.thread_time() - began
            assert task.status.state == S.TASK_STATE_COMPLETED
            assert text_told(events) == "".join(f"{n} " for n in range(count)) + "done"
            assert events[-1].status.state == S.TASK_STATE_COMPLETED
            measured.append((seconds, store.bytes))
            await idle(engine)
            again = await load(store, task_id)
            assert again is not None
            assert again.public() == task
    (fast, few), (slow, many) = min(measured[::2]), min(measured[1::2])
    assert many < few * 25  # a snapshot now and then, in all about as much as the log
    assert slow < fast * 25


async def test_a_stream_waits_for_a_store_that_is_down():
    """What is not stored yet is bounded; when the store is back everything comes."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "talk", data={"what": "x", "count": 5_000})
        async with engine.borrow(task_id) as live:
            store.down = True
            await asyncio.sleep(0.1)
            assert len(live._pending) <= pending_module.ENTRY_RECORDS
            store.down = False
            await asyncio.wait_for(live.settled(), 10)
            told = [text_of(voice).split() for voice in live.folded.task.artifacts]
            assert told == [[str(n) for n in range(voice, 5_000, 2)] for voice in range(2)] + [["done"]]


async def test_a_long_log_is_read_by_its_last_snapshot(monkeypatch):
    """Few reads however long it is; without its hint, or with a hint that came too early, it is read in whole."""
    monkeypatch.setattr(pending_module, "ENTRY_RECORDS", 1)
    shop, store = Shop(), CountingStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "talk", data={"what": "x", "count": 1_200})
        task = await settled(engine, task_id)
    assert sum(key.startswith("log:") for key in store.data) > 1_200
    head = head_key(task_id)
    assert int(store.data[head]) >= 1_000

    async def reads() -> int:
        before = store.reads
        folded = await load(store, task_id)
        assert folded is not None
        assert folded.public() == task
        return store.reads - before

    assert await reads() < 15
    for hint in (b"512", b"3", b"9999"):
        store.data[head] = hint
        await reads()
    del store.data[head]
    assert await reads() > 30
    del store.data[log_key(task_id, 700)]
    shorter = await load(store, task_id)
    assert shorter is not None
    assert shorter.n == 699


async def test_thousands_of_waiting_tasks_are_taken_up_in_the_background():
    """A restart with 2,000 sleeping tasks serves at once, and sleeping tasks cost a timer each, not their task."""
    shop, store = Shop(), MemoryStore()

    @shop.agent.skill(scope="rest", idempotent=False)
    async def rest(order: Order, task: Task) -> Receipt:
        """Sleep for a day."""
        await task.sleep(86_400)
        return Receipt(said="morning")

    async with started(shop.agent, store) as engine:
        await asyncio.gather(*(send(engine, shop, "rest", f"m{n}") for n in range(2_000)))
        await until(lambda: not engine._lives)  # they run by the hundreds
        await idle(engine)
        assert len(sorted(engine.journal.slot.todo.all)) == 2_000
    tracemalloc.start()
    async with started(shop.agent, store) as engine:
        assert len(engine._watches._sleepers) < 2_000
        assert (await settled(engine, await send(engine, shop, "look", "soon"))).status.state == S.TASK_STATE_COMPLETED
        await until(lambda: len(engine._watches._sleepers) == 2_000 and not engine._lives)
        gc.collect()  # what is on its way out is not held
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 2_000 * 4_000, held
        assert len(sorted(engine.journal.slot.todo.all)) == 2_000


async def test_the_clock_can_be_set():
    """Statuses, `now` and sleeps follow it; stamps never go back even when it does."""
    from sidecard.tasks.engine import Engine
    from sidecard.testing import KEY

    shop, store = Shop(), MemoryStore()
    moments = iter([1_000_000 - n for n in range(100)])
    engine = Engine(
        shop.agent,
        store,
        task_id_key=KEY,
        delegator=FakeAgents(),
        scopes_of=lambda _: shop.agent.scopes,
        clock=lambda: next(moments),
    )
    await engine.start()
    task_id = await send(engine, shop, "choose")
    await settled(engine, task_id)
    async with engine.borrow(task_id) as live:
        live.append(["unpush", "none"])  # an entry without a status
        await live.stored()
    await answer(engine, shop, task_id, "red")
    task = await settled(engine, task_id)
    await engine.stop()
    _, entries = await read_log(store, task_id)
    for stamps in (
        [entry.at for entry in entries],
        [record[1] for entry in entries for record in entry.records if record[0] == "status"],
    ):
        assert len(stamps) > 3
        assert stamps == sorted(set(stamps))
    assert task.status.timestamp.ToMilliseconds() < 1_000_100
    assert task.metadata["createdAt"] == "1970-01-01T00:16:40.000Z"
    assert task.metadata["createdAt"] < task.metadata["lastModified"]


async def test_a_page_of_tasks_costs_a_few_reads():
    """After the first, some are read at once, and none beyond the page but the next one; however long the list is."""
    shop, store = Shop(), CountingStore()
    async with started(shop.agent, store) as engine:
        for n in range(60):
            await settled(engine, await send(engine, shop, ("look", "tell")[n % 2], f"m{n}"))
        await idle(engine)
        store.reads, store.asked = 0, []
        page = await list_tasks(engine, "", "ada", ListTasksRequest(page_size=20))
        assert len(page.tasks) == 20
        assert len({task.id for task in page.tasks}) == 20
        assert sum(key.startswith("head:") for key in store.asked) == 21
        assert store.reads == 1 + math.ceil(20 / AT_ONCE)
