"""What ended long ago is forgotten, wholly, and nothing else is: whatever the store does, and whoever else looks."""

import asyncio
import contextlib
import logging

import pytest
from a2a.types import ListTasksRequest, TaskPushNotificationConfig, TaskState

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks import replicas, retention
from sidecard.tasks.batch import Append
from sidecard.tasks.cursor import topic_key
from sidecard.tasks.engine import Engine, system_clock
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.identity import DifferentMessage
from sidecard.tasks.index import PAGE, Line, OwnerList, Trim
from sidecard.tasks.listing import list_tasks
from sidecard.tasks.loading import load
from sidecard.tasks.retention import Keep, Retention
from sidecard.tasks.slots import Slot, Sweep
from sidecard.tasks.tombstone import TaskExpired, Tombstone
from sidecard.testing import KEY, FakeAgents, FakeWebhooks, MemoryStore, caller, message
from tests.sidecard.tasks.shop import Shop, answer, idle, send, settled, until
from tests.sidecard.tasks.test_faults import FAULTS, FaultyStore

S = TaskState
DAY = 86_400_000
KEEP = Keep(days=30, deduplication_hours=24)
EVERYTHING = ("log:", "head:", "push:")


class Years:
    """A clock that can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return system_clock() + self.ahead

    def days(self, count: float) -> None:
        self.ahead += round(count * DAY)


class House:
    """One store, and engines on it that share a clock."""

    def __init__(self, *, atomic: bool, shared: bool = False) -> None:
        self.store = MemoryStore(atomic=atomic, shared=shared)
        self.clock = Years()
        self.shop = Shop()
        self.webhooks = FakeWebhooks()
        self.stack = contextlib.AsyncExitStack()

    def engine(self, store: MemoryStore | None = None) -> Engine:
        return Engine(
            self.shop.agent,
            store or self.store,
            task_id_key=KEY,
            delegator=FakeAgents(),
            scopes_of=lambda _: self.shop.agent.scopes,
            sender=self.webhooks,
            clock=self.clock,
            keep=KEEP,
        )

    async def start(self) -> Engine:
        engine = self.engine()
        await engine.start()
        self.stack.push_async_callback(engine.stop, 0)
        return engine

    def stored(self, task_id: str = "") -> list[str]:
        return sorted(key for key in self.store.data if key.startswith(EVERYTHING) and task_id in key)


def sweeper(engine: Engine) -> Retention:
    return Retention(engine.journal, engine.slots, engine.keep, engine._clock, engine._replicas.left_over)


async def sweep(engine: Engine) -> None:
    """Everything that a sweeper finds to do now, which has found nothing before."""
    one = sweeper(engine)
    async with asyncio.timeout(20):
        while await one.step():
            pass


async def listed(engine: Engine, **filters):
    found = await list_tasks(engine, "", "ada", ListTasksRequest(**filters))
    return [task.id for task in found.tasks], found.total_size


async def exists(engine: Engine, task_id: str) -> bool:
    async with engine.borrow(task_id) as live:
        return live is not None


@pytest.fixture(params=[True, False], ids=["transactions", "key by key"])
async def house(request):
    made = House(atomic=request.param)
    async with made.stack:
        yield made


@pytest.mark.parametrize("before", [0, PAGE - 2], ids=["in one page", "in two"])
async def test_a_task_expires_once_though_something_of_the_same_moment_was_taken_back(before):
    """Where keys are written alone, a list may name it twice: nothing else is taken out of the counts for that."""
    house = House(atomic=False)
    async with house.stack:
        engine = await house.start()
        for n in range(before):
            await settled(engine, await send(engine, house.shop, "look", f"before {n}"))
        ended = await send(engine, house.shop, "look", "m1")
        line = await as_listed(engine, ended)
        with pytest.raises(TaskConflict):
            await engine.journal.append(Append(ended, 1, b"late", ("", "ada"), line, listed=False, contested=True))
        assert (await listed(engine))[0][0] == ended
        assert (await listed(engine))[1] == before + 1
        house.clock.days(31)
        await sweep(engine)
        assert await listed(engine) == ([], 0)


async def as_listed(engine, task_id):
    """A task that has ended, and the line of its end."""
    async with engine.borrow(task_id) as live:
        await live.settled()
        at = live.folded.task.status.timestamp.ToMilliseconds()
        return Line(task_id, live.meta["context"], 0, live.folded.state, at)


async def test_a_line_that_was_taken_back_and_stands_in_another_list_expires_there():
    """Two that sweep at once would else both take it out of the counts."""
    house = House(atomic=False, shared=True)
    async with house.stack:
        one, two = await house.start(), await house.start()
        line = await as_listed(one, await send(one, house.shop, "look"))
        await one.journal.sweep(Sweep(checkpoint=True), {("", "ada"): [line.undone()]})
        await two.journal.sweep(Sweep(checkpoint=True), {("", "ada"): [line]})
        assert await listed(one) == ([line.task_id], 1)
        house.clock.days(31)
        await asyncio.gather(sweep(one), sweep(two))
        assert await listed(one) == ([], 0)


async def test_a_late_line_behind_a_younger_one_lets_that_stay(house):
    """Lists are in order but for what was stored late: each task expires, and none before its time."""
    engine = await house.start()
    old = await as_listed(engine, await send(engine, house.shop, "look", "m1"))
    await engine.journal.sweep(Sweep(checkpoint=True), {("", "ada"): [old.undone()]})
    house.clock.ahead += 60_000
    young = await as_listed(engine, await send(engine, house.shop, "look", "m2"))
    await engine.journal.sweep(Sweep(checkpoint=True))
    await engine.journal.sweep(Sweep(checkpoint=True), {("", "ada"): [old]})
    house.clock.ahead += 30 * DAY - 30_000
    await sweep(engine)
    assert young.task_id in (await listed(engine))[0]
    house.clock.ahead += 60_000
    await sweep(engine)
    assert await listed(engine) == ([], 0)
    house.clock.days(2)
    await sweep(engine)
    assert house.stored() == []


async def test_a_task_expires_a_while_after_its_end_and_everything_of_it_goes(house):
    """Not a day earlier; nobody finds it then, no count counts it, and later no key has its name."""
    engine = await house.start()
    hook = TaskPushNotificationConfig(id="w", url="https://example.org/")
    sent = message("", "m1", data={"what": "hat", "count": 3})
    task_id = await engine.intake.create(caller(house.shop.agent), "", house.shop.skill("talk"), sent, hook)
    await settled(engine, task_id)
    await until(lambda: not engine.journal.slot.outbox.all)
    await idle(engine)
    assert {key.partition(":")[0] for key in house.stored(task_id)} == {"log", "push"}
    house.clock.days(29.9)
    await sweep(engine)
    assert await listed(engine) == ([task_id], 1)
    house.clock.days(0.2)
    await sweep(engine)
    assert not await exists(engine, task_id)
    assert await listed(engine) == ([], 0)
    assert await listed(engine, status=S.TASK_STATE_COMPLETED) == ([], 0)
    assert Tombstone.of(house.store.data[log_key(task_id, 1)]) is not None
    house.clock.days(0.9)
    await sweep(engine)
    assert log_key(task_id, 1) in house.store.data
    house.clock.days(0.2)
    await sweep(engine)
    assert not house.stored()
    assert not [key for key, value in house.store.data.items() if task_id in key or _in_pages(key, value, task_id)]


def _in_pages(key: str, value: bytes, task_id: str) -> bool:
    return key.startswith(("index:", "todo:", "outbox:")) and task_id.encode() in value


async def test_a_message_that_comes_again_for_an_expired_task_is_told_so(house):
    """It starts nothing while the deduplication window lasts, other content is refused, and after it a task is made."""
    engine = await house.start()
    task_id = await send(engine, house.shop, "buy")
    await settled(engine, task_id)
    house.clock.days(31)
    await sweep(engine)
    for _ in range(2):
        with pytest.raises(TaskExpired, match="use a new messageId"):
            await send(engine, house.shop, "buy")
    with pytest.raises(DifferentMessage):
        await send(engine, house.shop, "buy", data={"what": "coat"})
    assert house.shop.effects == 1
    assert await listed(engine) == ([], 0)
    house.clock.days(1.1)
    await sweep(engine)
    assert await send(engine, house.shop, "buy") == task_id
    await settled(engine, task_id)
    assert house.shop.effects == 2
    assert await listed(engine) == ([task_id], 1)


async def test_a_task_that_waits_for_a_person_never_expires_and_holds_up_nothing(house):
    """It is listed and answered after years; when it has ended it expires as others do."""
    engine = await house.start()
    waiting = await send(engine, house.shop, "choose", "m0")
    await settled(engine, waiting)
    for number in range(PAGE):
        await settled(engine, await send(engine, house.shop, "look", f"m{number + 1}"))
    house.clock.days(400)
    await sweep(engine)
    assert await listed(engine) == ([waiting], 1)
    assert await listed(engine, status=S.TASK_STATE_INPUT_REQUIRED) == ([waiting], 1)
    house.clock.days(1.1)
    await sweep(engine)
    assert house.stored() == house.stored(waiting)
    async with engine.borrow(waiting) as live:
        context = live.meta["context"]
    assert await listed(engine, context_id=context) == ([waiting], 1)
    await answer(engine, house.shop, waiting, "red")
    await settled(engine, waiting)
    await sweep(engine)
    assert await listed(engine) == ([waiting], 1)
    for _ in range(2):
        house.clock.days(31)
        await sweep(engine)
    assert await listed(engine) == ([], 0)
    assert not house.stored()


async def test_a_task_whose_webhooks_are_still_to_be_told_stays(house):
    """However old it is, it stays until they are told; then it goes, though its list begins behind it by then."""
    engine = await house.start()
    task_id = await send(engine, house.shop, "look")
    await settled(engine, task_id)
    await idle(engine)
    house.clock.days(31)
    engine.journal.slot.outbox.all.add(task_id)
    await sweep(engine)
    assert await exists(engine, task_id)
    assert await listed(engine) == ([task_id], 1)
    engine.journal.slot.outbox.all.discard(task_id)
    await sweep(engine)
    assert await listed(engine) == ([], 0)
    house.clock.days(1.1)
    await sweep(engine)
    assert not house.stored()


async def test_nothing_expires_when_tasks_are_kept_for_ever(house, monkeypatch):
    """0 days is for ever: nobody looks."""
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0)
    engine = await house.start()
    for_ever = Keep(days=0, audit_days=0)
    await asyncio.wait_for(Retention(engine.journal, engine.slots, for_ever, house.clock).run(), 1)


async def test_tasks_expire_beside_serving(house, monkeypatch):
    """Nobody has to ask for it."""
    monkeypatch.setattr(retention, "FIRST_SECONDS", 0)
    monkeypatch.setattr(retention, "IDLE_SECONDS", 0.001)
    engine = await house.start()
    await settled(engine, await send(engine, house.shop, "look"))
    house.clock.days(31)
    await until(lambda: all(Tombstone.of(house.store.data[key]) for key in house.stored()))
    house.clock.days(2)
    await until(lambda: not house.stored())


async def test_a_late_writer_can_not_bring_an_expired_task_back(house):
    """What it creates behind the tombstone, or in its place, nobody reads."""
    engine = await house.start()
    task_id = await send(engine, house.shop, "buy")
    await settled(engine, task_id)
    folded = await load(house.store, task_id)
    late = Entry(previous=folded.nonce, epoch=folded.epoch, at=folded.at + 1, records=[["cancel", "ada"]])
    await idle(engine)
    house.clock.days(31)
    await sweep(engine)
    with pytest.raises(TaskConflict):
        await house.store.write([(log_key(task_id, 1), b"another first entry")], {})
    await house.store.write([(log_key(task_id, folded.n + 1), late.pack())], {f"head:{task_id}": b"%d" % folded.n})
    assert await load(house.store, task_id) is None
    assert await listed(engine) == ([], 0)


async def test_an_ended_task_is_read_whole_while_it_expires(house):
    """Its entries outlive its tombstone, so that a reader in their midst does not take half of them for all."""
    engine = await house.start()
    task_id = await send(engine, house.shop, "talk", data={"what": "x", "count": 20})
    await settled(engine, task_id)
    await idle(engine)
    entries = [key for key in house.stored(task_id) if key.startswith("log:")]
    house.clock.days(31)
    await sweep(engine)
    assert [key for key in house.stored(task_id) if key.startswith("log:")] == entries


async def test_whoever_reads_a_list_while_its_beginning_goes_reads_on(house):
    """A page that has expired under a reader ends the list there; the line of a task that stands still comes."""
    store = house.store
    listing = await OwnerList.load(store, 0, "", "ada")
    lines = [Line(f"t{at}", "c", 0, S.TASK_STATE_COMPLETED, at) for at in range(1, 3 * PAGE)]
    listing, writes = listing.stage(lines)
    await store.write([], writes)
    reader = (await OwnerList.load(store, 0, "", "ada")).newest_first(store)
    found = [(await anext(reader))[1].task_id for _ in range(PAGE)]
    after, _ = listing.stage([])
    writes, deletes = after.trim(Trim(2 * PAGE, 2 * PAGE, [(5, lines[5])]))
    await store.write([], writes, deletes)
    found += [line.task_id async for _, line in reader]
    assert found[-1] == "t6"
    assert len(found) >= PAGE
    again = await OwnerList.load(store, 0, "", "ada")
    assert [line.task_id async for _, line in again.newest_first(store, 5)] == [], "this reader has had it"
    assert [line.task_id async for _, line in again.newest_first(store)][-2:] == [f"t{2 * PAGE + 1}", "t6"]
    assert sorted(key for key in store.data if key.startswith("index:")) == sorted(
        [again.key, f"{again.key}:2", f"{again.key}:kept"]
    )


async def test_what_is_kept_young_costs_nothing(house):
    """With a thousand tasks that are young, a look at what expires reads a page at most, and writes nothing."""
    engine = await house.start()
    for number in range(0, 1000, 50):
        await asyncio.gather(*(send(engine, house.shop, "look", f"m{number + i}") for i in range(50)))
    await idle(engine)
    one, writes, reads = sweeper(engine), house.store.writes, []
    read = house.store.read

    async def counting(keys):
        reads.append(keys)
        return await read(keys)

    house.store.read = counting
    assert await one.step(), "the audit's turn"
    assert await one.step(), "the list's turn"
    assert not await one.step(), "they come again when their oldest is old"
    assert len(reads) <= 3
    assert house.store.writes == writes


@pytest.mark.parametrize("atomic", [True, False], ids=["transactions", "key by key"])
async def test_two_replicas_expire_what_each_of_them_ended(atomic):
    """At once, and over a task that both wrote to: each goes once, and the counts are right on both."""
    house = House(atomic=atomic, shared=True)
    async with house.stack:
        one, two = await house.start(), await house.start()
        asked = await send(one, house.shop, "choose", "m0")
        await settled(one, asked)
        await idle(one)
        await answer(two, house.shop, asked, "red")
        await settled(two, asked)
        for number in range(20):
            engine = (one, two)[number % 2]
            await settled(engine, await send(engine, house.shop, "look", f"n{number}"))
        assert (await listed(one))[1] == (await listed(two))[1] == 21
        house.clock.days(31)
        late = await send(two, house.shop, "look", "late")
        await sweep(two)
        assert await listed(one, context_id=f"c-{asked[:16]}") == ([], 0), "it ended there; lines of it are here too"
        await asyncio.gather(sweep(one), sweep(two))
        for engine in (one, two):
            assert await listed(engine) == ([late], 1)
            assert await listed(engine, status=S.TASK_STATE_COMPLETED) == ([late], 1)
            assert await listed(engine, context_id=f"c-{asked[:16]}") == ([], 0)
        house.clock.days(1.1)
        await asyncio.gather(sweep(one), sweep(two))
        assert house.stored() == house.stored(late)


@pytest.mark.parametrize("atomic", [True, False], ids=["transactions", "key by key"])
async def test_the_tasks_of_a_replica_that_is_gone_expire_too(atomic, monkeypatch):
    """One of those that stay looks after its lists, and whoever takes its place then finds them in order."""
    monkeypatch.setattr(replicas, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(retention, "REST", 0)
    house = House(atomic=atomic, shared=True)
    async with house.stack:
        one, two, three = [await house.start() for _ in range(3)]
        for number in range(5):
            task_id = await send(three, house.shop, "look", f"m{number}")
            await settled(three, task_id)
        house.store.data[topic_key(task_id)] = b"the topic was given up for it, and then switched off"
        await idle(three)
        await three.stop()
        await until(lambda: one._replicas.left_over() == [2])
        assert two._replicas.left_over() == [], "one is enough"
        for days in (31, 1.1):
            house.clock.days(days)
            await sweeper(one).step_in()
        assert not house.stored()
        assert await listed(two) == ([], 0)
        four = await house.start()
        assert four.journal.slot.number == 2
        task_id = await send(four, house.shop, "look", "m9")
        await settled(four, task_id)
        assert await listed(one) == await listed(four) == ([task_id], 1)


@pytest.mark.parametrize("atomic", [True, False], ids=["transactions", "key by key"])
async def test_a_fault_at_any_operation_while_tasks_expire_does_no_harm(atomic, caplog):
    """Whatever operation is lost, repeated, refused or its process's last: at the end all is gone, and counted once."""
    caplog.set_level(logging.CRITICAL)
    stored = await _stored(atomic=atomic)
    most = await _expire_with(0, "", stored, atomic=atomic)
    assert most > 8
    for fault in FAULTS:
        for at in range(1, most + 1):
            try:
                async with asyncio.timeout(10):
                    await _expire_with(at, fault, stored, atomic=atomic)
            except BaseException as error:
                error.add_note(f"{fault} at operation {at} of {most}")
                raise


async def _stored(*, atomic: bool) -> tuple[dict[str, bytes], str]:
    """A store with three tasks that have ended, and the id of one that waits."""
    house = House(atomic=atomic)
    engine = house.engine()
    await engine.start()
    waiting = await send(engine, house.shop, "choose", "w")
    await settled(engine, waiting)
    for number in range(3):
        await settled(engine, await send(engine, house.shop, "buy", f"m{number}"))
    await idle(engine)
    await engine.stop()
    return house.store.data, waiting


async def _expire_with(at: int, fault: str, stored: tuple[dict[str, bytes], str], *, atomic: bool) -> int:
    data, waiting = stored
    house = House(atomic=atomic)
    house.store.data.update(data)
    house.clock.days(31)
    store = FaultyStore(house.store.data, atomic=atomic)
    engine = house.engine(store)
    await engine.start()
    store.arm(at, fault)
    for _ in range(2):
        await _sweep_or_die(engine, store)
        house.clock.days(1.1)
    operations = store.operations
    await engine.stop(0)
    last = await house.start()
    async with house.stack:
        await sweep(last)
        assert await listed(last) == ([waiting], 1)
        assert await listed(last, status=S.TASK_STATE_COMPLETED) == ([], 0)
        slot = await Slot.load(house.store, last.journal.slot.number)
        assert +(await slot.lists.of(("", "ada"))).counts == {S.TASK_STATE_INPUT_REQUIRED: 1}
        house.clock.days(1.1)
        await sweep(last)
        assert house.stored() == house.stored(waiting)
        assert await listed(last) == ([waiting], 1)
    return operations


async def _sweep_or_die(engine: Engine, store: FaultyStore) -> None:
    async def insist() -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await sweep(engine)
                return
            await asyncio.sleep(0)

    sweeping, dying = asyncio.create_task(insist()), asyncio.create_task(store.died.wait())
    await asyncio.wait([sweeping, dying], return_when=asyncio.FIRST_COMPLETED)
    for task in (sweeping, dying):
        task.cancel()
    await asyncio.gather(sweeping, dying, return_exceptions=True)
    if sweeping.done() and not sweeping.cancelled():
        sweeping.result()
