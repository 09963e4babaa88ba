"""The engine on the real stores: what a memory store promises in other tests, these keep."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from sidecard.errors import TaskConflict
from sidecard.push import Outcome
from sidecard.tasks import replicas
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.dead import ask_for, dead_letters, taken
from sidecard.tasks.engine import Engine
from sidecard.tasks.slots import Slot
from sidecard.tasks.store import KINDS, SHORT, prove
from sidecard.testing import FakeAgents, FakeWebhooks, caller
from tests.sidecard.tasks.shop import Shop, answer, said, send, settled, text_of, text_told, until
from tests.sidecard.tasks.test_outbox import URL, begin, told


@pytest.fixture
async def start(sidecar):
    """Starts an engine of a shop on the store, as one more replica; all stop at the end."""
    async with _starting(sidecar) as starting:
        yield starting


@pytest.fixture
async def start_shared(shared_sidecar):
    """The same, on a store that replicas may share."""
    async with _starting(shared_sidecar) as starting:
        yield starting


@contextlib.asynccontextmanager
async def _starting(sidecar):
    async with contextlib.AsyncExitStack() as stack:

        async def starting(shop, **more):
            store = sidecar.store()
            stack.push_async_callback(store.close)
            await store.recognise()
            engine = Engine(
                shop.agent,
                store,
                task_id_key=b"only for tests",
                delegator=FakeAgents(),
                scopes_of=lambda _: shop.agent.scopes,
                **more,
            )
            await engine.start()
            stack.push_async_callback(engine.stop)
            return engine

        yield starting


def crash(engine):
    """Nothing more of this replica is written or watched."""
    engine._stopping = True
    for task in (*engine._background, *engine._replicas._tasks, engine._tailing, engine.journal._pump):
        if task is not None:
            task.cancel()
    engine._replicas._slot = None
    for live in engine._lives.values():
        if live.run is not None:
            live.run.abandon()


async def test_the_store_decides_in_the_form_used(sidecar):
    """Of racing writers exactly one wins, and it is recognised for what it is."""
    store = sidecar.store()
    await store.recognise()
    assert (store.shared, store.atomic) == KINDS[sidecar.kind]
    for number in range(20):
        await prove(store, "state", f"probe:{number}")
    await store.close()


@pytest.mark.parametrize("size", [1, SHORT + 1], ids=["by HTTP", "by gRPC"])
async def test_what_is_stored_is_read_back_whichever_way_it_went(sidecar, size):
    """Byte for byte, also what looks like the other way; a key that is taken is told so, and nothing is changed."""
    store = sidecar.store()
    await store.recognise()
    values = {f"{size}:{begin}": begin * size for begin in (b"a", b'"', b"\x00", b"\xff", b'"MQ=="')}
    for key, value in values.items():
        await store.write([(key, value)], {f"{key}:too": value}, ["absent"])
        with pytest.raises(TaskConflict):
            await store.write([(key, b"2" * size)], {})
    assert await store.read([*values, *(f"{key}:too" for key in values)]) == values | {
        f"{key}:too": value for key, value in values.items()
    }
    await store.delete([*values, *(f"{key}:too" for key in values)])
    assert await store.read([*values]) == {}
    await store.close()


async def test_more_is_read_at_once_than_the_sidecar_answers_at_once(sidecar):
    """Here it takes 4 MB: several large tasks, and one with several large entries, are read all the same."""
    store = sidecar.store()
    await store.recognise()
    values = {f"large:{n}": bytes([n]) * 1_500_000 for n in range(7)}
    for key, value in values.items():
        await store.write([], {key: value})
    assert await store.read([*values, "large:none"]) == values
    await store.delete([*values])
    await store.close()


async def test_every_kind_of_task_ends_on_it(start):
    """Short ones by the hundred, long ones in chunks, asking ones over a restart of the engine."""
    shop = Shop()
    engine = await start(shop)
    ids = await asyncio.gather(*(send(engine, shop, "look", f"look {n}") for n in range(300)))
    assert len(set(ids)) == 300
    for task_id in ids[::50]:
        assert said(await settled(engine, task_id)) == "1 hat"
    for voices, skill in enumerate(("tell", "talk"), 1):
        told = await settled(engine, await send(engine, shop, skill, skill, data={"what": "x", "count": 1_000}))
        assert list(map(text_of, told.artifacts[:-1])) == [
            "".join(f"{n} " for n in range(voice, 1_000, voices)) for voice in range(voices)
        ]
    asking = await send(engine, shop, "choose", "choose")
    await settled(engine, asking)
    await engine.stop()
    engine = await start(shop)
    await answer(engine, shop, asking, "red")
    assert said(await settled(engine, asking)) == "r by ada"
    assert (await engine.journal.slot.lists.of(("", "ada"))).counts[3] >= 300
    assert (await Slot.load(engine.store, engine.journal.slot.number)).todo.all == set()


async def test_what_was_given_up_is_delivered_after_all_on_it(start, sidecar):
    """Asked for by way of the store; who asks while somebody else has is told so."""
    shop, webhooks = Shop(), FakeWebhooks()
    webhooks.answers[URL] = [Outcome(problem="down")] * 1_000
    engine = await start(shop, sender=webhooks, backoff=Backoff(first=0.001, most=0.002, patience=0.01))
    store = sidecar.store()
    await store.recognise()
    task_id = await begin(engine, shop, "look", "given up")
    await until(lambda: engine.outbox.dead)
    await until(lambda: not engine.outbox)
    letters = [letter for letter in await dead_letters(store) if letter.task_id == task_id]
    assert [(letter.config_id, letter.waiting) for letter in letters] == [("w", 4)]
    webhooks.answers.clear()
    of_nobody = [replace(letters[0], slot=999)]
    assert [await ask_for(store, of_nobody), await ask_for(store, of_nobody)] == [True, False]
    assert await ask_for(store, letters)
    assert await taken(store, letters, 10)
    await until(lambda: told(webhooks) == ["SUBMITTED", "WORKING", "+", "COMPLETED"])
    await until(lambda: not engine.outbox)
    assert await dead_letters(store) == []
    await store.close()


async def test_one_message_is_one_task_on_two_replicas(start_shared):
    """A hundred copies at once."""
    shop = Shop()
    engines = [await start_shared(shop), await start_shared(shop)]
    ids = await asyncio.gather(*(send(engines[n % 2], shop, "buy", "same") for n in range(100)))
    assert len(set(ids)) == 1
    await settled(engines[0], ids[0])
    assert shop.effects == 1


async def test_the_tasks_of_a_dead_replica_go_on_in_seconds(start_shared):
    """And its slot is free afterwards, its lists with the survivor."""
    shop, other = Shop(), Shop()
    one, two = await start_shared(shop), await start_shared(other)
    tasks = await asyncio.gather(*(send(one, shop, "slow", f"slow {n}") for n in range(50)))
    await asyncio.sleep(0.2)
    number = one.journal.slot.number
    crash(one)
    other.gate.set()
    async with asyncio.timeout(5):
        for task_id in tasks:
            assert said(await settled(two, task_id)) == "at last"
    await until_free(two.store, number)


async def until_free(store, number):
    async with asyncio.timeout(10):
        while (await store.read([f"beat:{number}"]))[f"beat:{number}"] != replicas.FREE:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    slot = await Slot.load(store, number)
    assert not slot.todo.all


async def test_streams_and_cancels_cross_replicas(start_shared):
    """What one runs another follows and cancels."""
    shop = Shop()
    one, two = await start_shared(shop), await start_shared(shop)
    task_id = await send(one, shop, "tell", "stream", data={"what": "x", "count": 3_000})
    async with two.borrow(task_id) as live:
        events = [event async for event in live.follow()]
    assert text_told(events) == "".join(f"{n} " for n in range(3_000)) + "done"
    slow = await send(one, shop, "slow", "slow")
    async with two.borrow(slow) as live:
        await two.cancel(live, caller(shop.agent))
        assert live.folded.ended
    await until(lambda: not one._lives)
