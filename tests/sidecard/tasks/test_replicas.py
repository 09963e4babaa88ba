"""Several replicas of an agent on one store: any of them serves any task, and the tasks of a dead one go on."""

import asyncio
import contextlib
import time

import pytest
from a2a.types import ListTasksRequest, TaskState

from sidecard import Task
from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks import adoption, replicas, slots, tail
from sidecard.tasks.act import Act
from sidecard.tasks.engine import Engine
from sidecard.tasks.intake import Overtaken
from sidecard.tasks.late import Late
from sidecard.tasks.listing import list_tasks
from sidecard.tasks.loading import load
from sidecard.tasks.slots import Slot
from sidecard.tasks.state import TAKEN
from sidecard.testing import KEY, FakeAgents, FakeWebhooks, MemoryStore, caller, ended, message
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, said, send, settled, text_told, until
from tests.sidecard.tasks.test_faults import records
from tests.sidecard.tasks.test_outbox import begin, told, webhook

S = TaskState
DEAD = 0.25


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(replicas, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(replicas, "DEAD_SECONDS", DEAD)
    monkeypatch.setattr(tail, "LEAST_SECONDS", 0.005)
    monkeypatch.setattr(tail, "MOST_SECONDS", 0.02)
    monkeypatch.setattr(adoption, "RETRY_SECONDS", 0.02)


class Cut(MemoryStore):
    """One replica's way to the store that all share.

    While it is not `open`, whatever it sends waits, and arrives late; while it is not `heard`, entries of tasks are
    stored and it is not told.
    """

    def __init__(self, data, *, atomic):
        super().__init__(shared=True, atomic=atomic)
        self.data = data
        self.open = asyncio.Event()
        self.open.set()
        self.heard = asyncio.Event()
        self.heard.set()
        self.dead = False

    async def write(self, creates, upserts, deletes=()):
        await self._passes()
        await super().write(creates, upserts, deletes)
        if any(key.startswith("log:") for key, _ in creates):
            await self.heard.wait()

    async def read(self, keys):
        await self._passes()
        return await super().read(keys)

    async def _passes(self):
        await self.open.wait()
        if self.dead:
            await asyncio.Event().wait()


class Cluster:
    """Replicas of one shop on one store. `kill` is kill -9: nothing more of it reaches the store."""

    def __init__(self, *, atomic=True):
        self.data = {}
        self.atomic = atomic
        self.agents = FakeAgents()
        self.stack = contextlib.AsyncExitStack()

    async def replica(self, shop, **more):
        store = Cut(self.data, atomic=self.atomic)
        engine = Engine(
            shop.agent, store, task_id_key=KEY, delegator=self.agents, scopes_of=lambda _: shop.agent.scopes, **more
        )
        await engine.start()
        self.stack.push_async_callback(self._end, engine)
        return engine

    def kill(self, engine):
        engine.store.dead = True
        for live in engine._lives.values():
            if live.run is not None:
                live.run.abandon()
        engine._watches.stop()

    async def _end(self, engine):
        if engine.store.dead:
            engine._replicas._slot = None
        engine.store.open.set()
        engine.store.heard.set()
        await engine.stop(0)

    async def folded(self, task_id):
        store = MemoryStore()
        store.data = self.data
        return await load(store, task_id)

    async def listed(self):
        """Everything that any slot still has to do."""
        store = MemoryStore()
        store.data = self.data
        numbers = {int(key.split(":")[1]) for key in self.data if key.startswith("slot:")}
        return set().union(*[(await Slot.load(store, number)).todo.all for number in numbers])


@pytest.fixture(params=[True, False], ids=["transactions", "key by key"])
async def cluster(request):
    made = Cluster(atomic=request.param)
    async with made.stack:
        yield made


async def test_each_replica_has_a_slot_of_its_own_and_a_new_one_takes_a_free_one(cluster):
    """However often replicas come and go, there are no more slots than were held at once."""
    shop = Shop()
    one, two = await cluster.replica(shop), await cluster.replica(shop)
    assert {one.journal.slot.number, two.journal.slot.number} == {0, 1}
    await two.stop()
    three = await cluster.replica(shop)
    assert three.journal.slot.number == 1
    assert three.journal.replica != two.journal.replica


async def test_a_sign_of_life_is_one_small_write_and_changes_each_time(cluster):
    """That is all that an idle replica writes."""
    one = await cluster.replica(Shop())
    store, sent, beats = one.store, [], set()
    write = store.write

    async def watched(creates, upserts, deletes=()):
        sent.append((list(creates), dict(upserts), list(deletes)))
        await write(creates, upserts, deletes)

    store.write = watched
    await until(lambda: len(sent) >= 5)
    for creates, upserts, deletes in sent:
        assert (creates, deletes, list(upserts)) == ([], [], ["beat:0"])
        assert len(upserts["beat:0"]) < 64
        beats.add(upserts["beat:0"])
    assert len(beats) == len(sent)


async def test_any_replica_reads_answers_and_lists_any_task(cluster):
    """A task that one started another shows, lists and continues; the first one shows how it ends."""
    shop = Shop()
    one, two = await cluster.replica(shop), await cluster.replica(shop)
    task_id = await send(one, shop, "choose")
    assert (await settled(two, task_id)).status.state == S.TASK_STATE_INPUT_REQUIRED
    await answer(two, shop, task_id, "red")
    assert said(await settled(two, task_id)) == "r by ada"
    assert said(await settled(one, task_id)) == "r by ada"
    for engine in (one, two):
        listed = await list_tasks(engine, "", "ada", ListTasksRequest())
        assert [task.id for task in listed.tasks] == [task_id]
        assert listed.total_size == 1
    assert await cluster.listed() == set()


@pytest.mark.parametrize("size", [1, 2, 10])
async def test_lists_of_all_replicas_are_one(cluster, size):
    """Newest first whoever has them, in pages that lose and repeat nothing, the same on each; a change counts once."""
    shop = Shop()
    engines = [await cluster.replica(shop) for _ in range(3)]
    made = []
    for n in range(7):
        made.insert(0, await send(engines[(0, 1, 0, 2, 2, 1, 0)[n]], shop, "choose" if n == 1 else "look", f"m{n}"))
        await settled(engines[0], made[0])
        await asyncio.sleep(0.002)  # statuses are stamped in milliseconds
    await answer(engines[0], shop, made[5], "red")  # which another replica began
    await settled(engines[0], made[5])
    expected = [made[5], *made[:5], made[6]]
    for engine in engines:
        listed, token = [], ""
        while True:
            page = await list_tasks(engine, "", "ada", ListTasksRequest(page_size=size, page_token=token))
            assert page.total_size == 7
            listed += [task.id for task in page.tasks]
            if not (token := page.next_page_token):
                break
        assert listed == expected


async def test_one_message_is_one_task_on_all_replicas(cluster):
    """The same messageId a hundred times at once, on two replicas."""
    shop = Shop()
    engines = [await cluster.replica(shop), await cluster.replica(shop)]
    ids = await asyncio.gather(*(send(engines[n % 2], shop, "buy") for n in range(100)))
    assert len(set(ids)) == 1
    assert said(await settled(engines[0], ids[0])) == "paid"
    assert shop.effects == 1


async def test_a_stream_follows_a_task_that_another_replica_runs(cluster):
    """Every event in order, none twice, to its end; also from the middle."""
    shop = Shop()
    one, two = await cluster.replica(shop), await cluster.replica(shop)
    task_id = await send(one, shop, "tell", data={"what": "x", "count": 2_000})
    async with two.borrow(task_id) as live:
        events = [event async for event in live.follow()]
    assert text_told(events) == "".join(f"{n} " for n in range(2_000)) + "done"
    assert events[-1].status.state == S.TASK_STATE_COMPLETED


async def test_a_cancel_reaches_work_on_another_replica(cluster):
    """Running, sleeping and delegating tasks; the canceler sees the end."""
    shop = Shop()

    @shop.agent.skill(scope="rest", idempotent=False)
    async def rest(order: Order, task: Task) -> Receipt:
        """Sleep for a day."""
        await task.sleep(86_400)
        return Receipt(said="morning")

    cluster.agents.hold = asyncio.Event()
    cluster.agents.answers["maker"] = [ended("t9", Receipt(said="made"))]
    one, two = await cluster.replica(shop), await cluster.replica(shop)
    for number, skill in enumerate(("slow", "rest", "through")):
        task_id = await send(one, shop, skill, f"m{number}")
        await asyncio.sleep(0.1)  # it runs, sleeps or waits by now, in memory or not
        async with two.borrow(task_id) as live:
            await two.cancel(live, caller(shop.agent))
            assert live.folded.state == S.TASK_STATE_CANCELED
            assert live.folded.owner_replica == one.journal.replica
    await until(lambda: not one._lives)
    assert await cluster.listed() == set()


async def test_a_cancel_gets_through_to_a_fast_stream(cluster):
    """An owner that writes all the time leaves a gap for an outsider who keeps losing."""
    shop = Shop()
    one, two = await cluster.replica(shop), await cluster.replica(shop)
    task_id = await send(one, shop, "talk", data={"what": "x", "count": 1_000_000})
    await asyncio.sleep(0.1)
    async with two.borrow(task_id) as live:
        await asyncio.wait_for(two.cancel(live, caller(shop.agent)), 10)
        assert live.folded.state == S.TASK_STATE_CANCELED


async def test_the_tasks_of_a_dead_replica_go_on(cluster):
    """Running, delegating, asking and sleeping ones; those with an effect under way end failed, outcome unknown."""
    shop, other = Shop(), Shop()
    hanging = asyncio.Event()

    async def effect():
        await hanging.wait()
        return "paid"

    for each in (shop, other):

        @each.agent.skill(scope="hang", idempotent=False)
        async def hang(order: Order, task: Task) -> Receipt:
            """Hang in an effect."""
            return Receipt(said=await task.once("pay", effect))

    cluster.agents.hold = asyncio.Event()
    cluster.agents.answers["maker"] = [ended("t9", Receipt(said="made"))]
    one = await cluster.replica(shop)
    names = {skill: await send(one, shop, skill, skill) for skill in ("slow", "through", "choose", "hang")}
    await asyncio.sleep(0.1)
    two = await cluster.replica(other)
    other.gate.set()
    cluster.kill(one)
    cluster.agents.hold.set()
    assert said(await settled(two, names["slow"])) == "at last"
    assert said(await settled(two, names["through"])) == "made: made"
    failed = await settled(two, names["hang"])
    assert failed.status.state == S.TASK_STATE_FAILED
    assert "outcome is not known" in failed.status.message.parts[0].text
    await answer(two, other, names["choose"], "red")
    assert said(await settled(two, names["choose"])) == "r by ada"
    await until(lambda: cluster.data.get("beat:0") == replicas.FREE)
    assert await cluster.listed() == set()


async def test_survivors_share_no_task_and_a_dying_survivor_leaves_none(cluster):
    """Two see the death; one takes over and dies while it does; the other finishes."""
    shops = [Shop() for _ in range(3)]
    one, two, three = [await cluster.replica(shop) for shop in shops]
    tasks = [await send(one, shops[0], "slow", f"m{n}") for n in range(40)]
    await asyncio.sleep(0.05)
    cluster.kill(one)
    await until(lambda: shops[1].runs or shops[2].runs)
    first, last = (two, three) if shops[1].runs else (three, two)
    cluster.kill(first)
    for shop in shops:
        shop.gate.set()
    for task_id in tasks:
        assert said(await settled(last, task_id)) == "at last"
    await until(lambda: [cluster.data[f"beat:{k}"] for k in range(3)].count(replicas.FREE) == 2)
    assert await cluster.listed() == set()


async def test_what_was_taken_over_is_taken_over_again(cluster):
    """A list is cleared only when its tasks are on the survivor's: who dies next leaves none either."""
    shops = [Shop() for _ in range(3)]
    one = await cluster.replica(shops[0])
    tasks = {await send(one, shops[0], "slow", f"m{n}") for n in range(3)}
    await until(lambda: shops[0].runs == 3)
    two = await cluster.replica(shops[1])
    cluster.kill(one)
    await until(lambda: shops[1].runs == 3 and cluster.data["beat:0"] == replicas.FREE)
    assert await cluster.listed() == tasks
    three = await cluster.replica(shops[2])
    cluster.kill(two)
    shops[2].gate.set()
    for task_id in tasks:
        assert said(await settled(three, task_id)) == "at last"
    await until(lambda: not three.journal.slot.todo.all)


async def test_a_frozen_owner_that_thaws_changes_nothing(cluster):
    """What it was about to write is refused, whatever it is; it goes on as a replica with another name."""
    shop, other = Shop(), Shop()
    one, two = await cluster.replica(shop), await cluster.replica(other)
    running = await send(one, shop, "slow", "m1")
    await asyncio.sleep(0.05)
    name = one.journal.replica
    one.store.open.clear()
    late = asyncio.create_task(send(one, shop, "buy", "m2"))
    other.gate.set()
    assert said(await settled(two, running)) == "at last"
    await until(lambda: cluster.data[f"beat:{name.partition('.')[0]}"] == replicas.FREE)
    entries = {key: value for key, value in cluster.data.items() if key.startswith("log:")}
    shop.gate.set()
    one.store.open.set()
    with pytest.raises((StoreUnavailable, TaskConflict)):
        await late
    if cluster.atomic:
        assert {key: value for key, value in cluster.data.items() if key.startswith("log:")} == entries
    assert shop.effects == 0
    await until(lambda: one.journal._slot is not None and one.journal.replica != name and not one._rejoining)
    assert said(await settled(one, await send(one, shop, "buy", "m2"))) == "paid"
    assert said(await settled(one, running)) == "at last"
    assert shop.effects == 1


async def test_a_thawed_replica_shows_nobody_the_past(cluster):
    """Before it has found out that others went on without it, it looks into the log rather than into its memory."""
    shop, other = Shop(), Shop()
    one, two = await cluster.replica(shop), await cluster.replica(other)
    running = await send(one, shop, "slow", "m1")
    assert one._lives._lives[running].run is not None
    one.store.open.clear()
    other.gate.set()
    assert said(await settled(two, running)) == "at last"
    one.store.open.set()
    shown = None
    while shown is None:
        with contextlib.suppress(StoreUnavailable):  # what it was about to write has just been refused
            async with one.borrow(running) as live:
                shown = live.folded.public()
    assert said(shown) == "at last"


async def test_a_sign_of_life_that_came_late_leaves_a_replica_in_question(cluster):
    """Others may have taken it for dead before: it is not believed by the next sign, but by a row of them in time."""
    one = (await cluster.replica(Shop()))._replicas
    began = time.monotonic()
    assert one.unquestioned(began)
    one._shown -= DEAD  # it was frozen
    assert not one.unquestioned(began)
    await one._beat()
    assert not one.unquestioned(began)
    assert not one.steady()
    assert one.unquestioned(time.monotonic())
    await until(one.steady)


async def test_a_name_that_was_lost_counts_as_dead_whatever_sign_of_life_it_shows(cluster):
    """A replica that thaws shows one before it knows; whose message comes again then must not be left to it."""
    one, two, three = [await cluster.replica(Shop()) for _ in range(3)]
    name = one.journal.replica
    cluster.kill(one)
    await until(lambda: cluster.data["beat:0"] == replicas.FREE)
    cluster.data["beat:0"] = f"{name} 1000".encode()
    others = (two._replicas, three._replicas)
    await until(lambda: all(other._seen[0].beat == cluster.data["beat:0"] for other in others))
    assert [other.alive(name) for other in others].count(True) == 1  # who took its place over knows
    for other in others:
        await other.bury(name)
        assert not other.alive(name)


async def test_a_replica_that_shows_life_just_before_its_place_is_taken_keeps_it(cluster):
    """Whoever was about to take it looks once more."""
    shop, other = Shop(), Shop()
    one, two = await cluster.replica(shop), await cluster.replica(other)
    running, name = await send(one, shop, "slow", "m1"), one.journal.replica
    await until(lambda: two._replicas.alive(name))
    load_slot = Slot.load

    async def slowly(store, number, seals=None):
        slot = await load_slot(store, number, seals)
        if store is two.store:
            await one._replicas._beat()
        return slot

    replicas.Slot.load = slowly
    try:
        await two._replicas._take_over(one.journal.slot.number, died=True)
    finally:
        replicas.Slot.load = load_slot
    assert (await Slot.load(two.store, one.journal.slot.number)).holder == name
    shop.gate.set()
    assert said(await settled(one, running)) == "at last"


async def test_a_task_that_another_replica_owns_is_shown_as_it_is(cluster):
    """Though somebody follows it here, and the reader has not read on yet."""
    shop, other = Shop(), Shop()
    one, two = await cluster.replica(shop), await cluster.replica(other)
    running = await send(one, shop, "slow", "m1")
    async with two.borrow(running) as follower:
        two._tail.read = asyncio.sleep  # reads nothing
        shop.gate.set()
        assert said(await settled(one, running)) == "at last"
        async with two.borrow(running) as live:
            assert live is follower
            assert said(live.folded.public()) == "at last"


def cut_off_before_the_log(store):
    """Freeze a replica between what its slot announces and the entry of a task, until its store is open."""
    write = store.write

    async def cut_off(creates, upserts, deletes=()):
        if any(key.startswith("log:") for key, _ in creates):
            store.write = write
            store.open.clear()
        await write(creates, upserts, deletes)

    store.write = cut_off


async def until_listed(engine, task_id):
    """Once in the list, and counted once, as completed."""
    expected = {state: [task_id] * (state in (0, S.TASK_STATE_COMPLETED)) for state in S.values()}
    found, counts = {}, {}
    async with asyncio.timeout(20):
        while found != expected or counts != {state: len(tasks) for state, tasks in expected.items()}:
            await asyncio.sleep(0.01)
            for state in S.values():
                page = await list_tasks(engine, "", "ada", ListTasksRequest(status=state))
                found[state], counts[state] = [task.id for task in page.tasks], page.total_size


@pytest.mark.parametrize("again", [True, False], ids=["sent again", "never sent again"])
@pytest.mark.parametrize("skill", ["look", "buy"])
async def test_what_a_deposed_replica_stores_too_late_is_listed_and_done(skill, again):
    """Where keys are written alone: nobody was told of it, and yet it is there; its receivers hear of all of it."""
    cluster, webhooks = Cluster(atomic=False), FakeWebhooks()
    async with cluster.stack:
        shop = Shop()
        one, two = [await cluster.replica(shop, sender=webhooks) for _ in range(2)]
        cut_off_before_the_log(one.store)
        hook = webhook()
        sending = asyncio.create_task(begin(one, shop, skill, hook=hook))
        await until(lambda: cluster.data["beat:0"] == replicas.FREE)
        one.store.open.set()
        with pytest.raises(StoreUnavailable):
            await sending
        if again:
            await begin(two, shop, skill, hook=hook)
        (task_id,) = {key.split(":")[1] for key in cluster.data if key.startswith("log:")}
        assert said(await settled(two, task_id))
        await until_listed(two, task_id)
        await until(lambda: told(webhooks)[-1:] == ["COMPLETED"])
        events = sum(record[0] in ("status", "artifact") for record in records(cluster.data, task_id))
        assert len({webhook_id for _, webhook_id, _ in webhooks.received}) == events
        assert shop.effects == (skill == "buy")
        await until(lambda: not (one.journal.slot.todo.all or two.journal.slot.todo.all))


async def test_what_was_stored_too_late_is_listed_though_its_replica_is_deposed_again(monkeypatch):
    """Before it could look what had become of it; then it looks under its third name."""
    cluster, looks, look = Cluster(atomic=False), asyncio.Event(), Late.stored

    async def looked(written, store):
        looks.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Late, "stored", looked)
    async with cluster.stack:
        shop = Shop()
        one, two = await cluster.replica(shop), await cluster.replica(shop)
        cut_off_before_the_log(one.store)
        sending = asyncio.create_task(send(one, shop, "buy"))
        await until(lambda: cluster.data["beat:0"] == replicas.FREE)
        one.store.open.set()
        with pytest.raises(StoreUnavailable):
            await sending
        await looks.wait()
        number = one.journal.slot.number
        one.store.open.clear()
        await until(lambda: cluster.data[f"beat:{number}"] == replicas.FREE)
        monkeypatch.setattr(Late, "stored", look)
        one.store.open.set()
        (task_id,) = {key.split(":")[1] for key in cluster.data if key.startswith("log:")}
        await until_listed(two, task_id)


async def test_an_end_that_is_stored_too_late_is_listed():
    """It comes when the task was on the other's list again, and not yet its own."""
    cluster = Cluster(atomic=False)
    async with cluster.stack:
        shop = Shop()
        one, two = await cluster.replica(shop), await cluster.replica(shop)
        task_id = await send(one, shop, "slow")
        await until(lambda: shop.runs)
        async with one.borrow(task_id) as live:
            await live.stored()
        cut_off_before_the_log(one.store)
        write = two.store.write

        async def wait_for_the_other(creates, upserts, deletes=()):
            if any(key.startswith("log:") for key, _ in creates):
                two.store.write = write
                one.store.open.set()
                await until(lambda: one._rejoining)
            await write(creates, upserts, deletes)

        two.store.write = wait_for_the_other
        shop.gate.set()
        assert said(await settled(two, task_id)) == "at last"
        await until_listed(two, task_id)
        await until(lambda: not (one.journal.slot.todo.all or two.journal.slot.todo.all))


async def test_what_is_acknowledged_just_before_its_replica_is_deposed_goes_on():
    """Where keys are written alone: what came true of the last announcement is looked at when the slot is taken."""
    cluster = Cluster(atomic=False)
    async with cluster.stack:
        shop = Shop()
        one, two = await cluster.replica(shop), await cluster.replica(shop)
        write_two = two.store.write
        cut_off_before_the_log(one.store)

        async def wait_before_the_claim(creates, upserts, deletes=()):
            if any(key.startswith("slot:0:") for key, _ in creates):
                two.store.write = write_two
                one.store.open.set()
                await sending
                one.store.open.clear()
            await write_two(creates, upserts, deletes)

        two.store.write = wait_before_the_claim
        sending = asyncio.create_task(send(one, shop, "slow"))
        task_id = await sending
        await until(lambda: cluster.data["beat:0"] == replicas.FREE)
        shop.gate.set()
        assert said(await settled(two, task_id)) == "at last"


async def test_the_entries_with_which_holders_came_stay(cluster, monkeypatch):
    """However many checkpoints later: a former holder that thaws must find its next entry taken."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 1)
    shop = Shop()
    one, two = await cluster.replica(shop), await cluster.replica(shop)
    await settled(one, await send(one, shop, "buy", "before"))
    n = one.journal.slot.n
    cluster.kill(one)
    await until(lambda: cluster.data["beat:0"] == replicas.FREE)
    three = await cluster.replica(shop)
    assert three.journal.slot.number == 0
    for number in range(4):
        await settled(three, await send(three, shop, "buy", f"m{number}"))
    assert f"slot:0:{n + 1}" in cluster.data
    assert f"slot:0:{n}" not in cluster.data
    assert two.journal.slot.number == 1


async def test_a_task_that_is_being_read_when_its_replica_stops_is_unavailable():
    """Nobody is told more than that, and may try again."""
    cluster = Cluster()
    async with cluster.stack:
        shop = Shop()
        engine = await cluster.replica(shop)
        task_id = await send(engine, shop, "buy")
        await settled(engine, task_id)
        await until(lambda: not engine._lives)
        engine.store.open.clear()
        reading = asyncio.create_task(settled(engine, task_id))
        await until(lambda: engine._lives._loading)
        await engine._lives.close()
        with pytest.raises(StoreUnavailable):
            await reading


@pytest.mark.parametrize("first", [0, 1])
async def test_a_store_that_was_away_kills_nobody(cluster, first):
    """When nobody reaches the store for long, all go on under their names afterwards, whoever finds it again first."""
    shop = Shop()
    one, two = await cluster.replica(shop), await cluster.replica(shop)
    task_id = await send(one, shop, "slow")
    names = one.journal.replica, two.journal.replica
    one.store.down = two.store.down = True
    await asyncio.sleep(DEAD * 2)
    (one, two)[first].store.down = False
    await asyncio.sleep(DEAD / 3)
    one.store.down = two.store.down = False
    await asyncio.sleep(DEAD * 2)
    assert (one.journal.replica, two.journal.replica) == names
    shop.gate.set()
    assert said(await settled(two, task_id)) == "at last"
    assert (await cluster.folded(task_id)).owner_replica == names[0]


async def test_a_stopping_replica_hands_its_tasks_over_at_once(cluster, monkeypatch):
    """Nobody waits for it to be taken for dead, and it does not count as a death."""
    monkeypatch.setattr(replicas, "DEAD_SECONDS", 60)
    shop, other = Shop(), Shop()
    one, two = await cluster.replica(shop), await cluster.replica(other)
    task_id = await send(one, shop, "slow")
    await asyncio.sleep(0.05)
    await one.stop()
    other.gate.set()
    assert said(await settled(two, task_id)) == "at last"
    assert (await cluster.folded(task_id)).deaths == 0


def with_poison(shop):
    """A skill that kills its process; the event says that it would have now."""
    killed = asyncio.Event()

    @shop.agent.skill(scope="poison", idempotent=False)
    async def poison(order: Order, task: Task) -> Receipt:
        """Kill the process."""
        killed.set()
        await asyncio.Event().wait()

    return killed


async def test_a_task_that_kills_its_process_is_given_up_and_takes_no_innocent_with_it(cluster):
    """After three deaths it fails; those that ran beside it end well."""
    tasks = []
    for number in range(6):
        shop = Shop()
        killed = with_poison(shop)
        engine = await cluster.replica(shop)
        if number == 0:
            tasks = [await send(engine, shop, "slow", f"m{n}") for n in range(5)]
            bad = await send(engine, shop, "poison", "bad")
            await asyncio.wait_for(killed.wait(), 5)
            await asyncio.sleep(0.05)
        else:
            done = asyncio.create_task(settled(engine, bad))
            death = asyncio.create_task(killed.wait())
            if number > 1:
                shop.gate.set()
            await asyncio.wait([done, death], timeout=10, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                death.cancel()
                break
            done.cancel()
        cluster.kill(engine)
    failed = await done
    assert failed.status.state == S.TASK_STATE_FAILED
    assert "given up" in failed.status.message.parts[0].text
    assert number == 3, "three deaths"
    shop.gate.set()
    for task_id in tasks:
        assert said(await settled(engine, task_id)) == "at last"
    assert await cluster.listed() == set()


@pytest.mark.parametrize("tries", [1, 2])
async def test_no_task_is_given_up_that_did_not_run_alone(cluster, tries):
    """However few deaths are allowed: one that others may have caused proves nothing."""
    for number in range(tries + 1):
        shop = Shop()
        engine = await cluster.replica(shop, tries=tries)
        if number == 0:
            task_id = await send(engine, shop, "slow")
        if number < tries:
            await until(lambda shop=shop: shop.runs)
            cluster.kill(engine)
    shop.gate.set()
    assert said(await settled(engine, task_id)) == "at last"


async def test_an_unshared_store_has_one_process_and_the_later_one_wins():
    """The earlier process learns it, takes nothing more, and writes nothing more."""
    shop, data = Shop(), {}
    engines = []
    for _ in range(2):
        store = MemoryStore()
        store.data = data
        engine = Engine(
            shop.agent, store, task_id_key=KEY, delegator=FakeAgents(), scopes_of=lambda _: shop.agent.scopes
        )
        await engine.start()
        engines.append(engine)
    one, two = engines
    with pytest.raises(StoreUnavailable):
        await send(one, shop, "buy")
    await asyncio.wait_for(one.superseded.wait(), 5)
    assert said(await settled(two, await send(two, shop, "buy"))) == "paid"
    assert shop.effects == 1
    await one.stop()
    assert said(await settled(two, await send(two, shop, "buy", "m2"))) == "paid"
    await two.stop()


async def test_what_is_stored_and_was_not_heard_of_is_not_answered_with_the_past(cluster):
    """Another replica shows it already: who asks here next must not see what was before."""
    shop = Shop()
    one, other = await cluster.replica(shop), await cluster.replica(shop)

    async def state_at(engine, task_id):
        async with engine.borrow(task_id) as live:
            return live.folded.state

    task_id = await send(one, shop, "choose", "choose")
    await settled(one, task_id)
    one.store.heard.clear()
    answering = asyncio.create_task(answer(one, shop, task_id, "red"))
    async with asyncio.timeout(5):
        while await state_at(other, task_id) == S.TASK_STATE_INPUT_REQUIRED:  # noqa: ASYNC110 -- a store's doing
            await asyncio.sleep(0)
    asking = asyncio.create_task(state_at(one, task_id))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asking.done()
    one.store.heard.set()
    assert await asking != S.TASK_STATE_INPUT_REQUIRED
    await answering


@pytest.mark.parametrize("besides", [0, 1])
async def test_an_answer_that_came_too_late_answers_no_other_question(cluster, besides, monkeypatch):
    """Another replica has closed its question meanwhile and asks the next one, which not everybody may answer."""
    monkeypatch.setattr(tail, "LEAST_SECONDS", 60.0)
    shop = Shop()

    @shop.agent.skill(scope="twice", idempotent=False)
    async def twice(order: Order, task: Task) -> Receipt:
        """Ask two things."""
        first = await task.ask("One?")
        second = await task.ask("Two?", scope="approve", by_other=True)
        return Receipt(said=f"{first.text} {second.text}")

    one, other = await cluster.replica(shop), await cluster.replica(shop)
    task_id = await send(one, shop, "twice")
    await settled(one, task_id)
    async with other.borrow(task_id) as late:
        first = late.question
        await answer(one, shop, task_id, "yes", "a1")
        await settled(one, task_id)
        assert late.question == first, "it has not heard"
        before = (await cluster.folded(task_id)).n
        acts = [Act("SendMessage"), Act("CreateTaskPushNotificationConfig")]
        sent = message("me too", "a2", task_id=task_id)
        answering = asyncio.create_task(other.intake.answer(late, caller(shop.agent), sent, act=acts[0]))
        await until(lambda: "a2" in late.messages)
        for act in acts[1 : 1 + besides]:
            late.append(["unpush", "none"], act=act)
        with pytest.raises(Overtaken, match="something else"):
            await answering
        await late.commit()
        assert [act.recorded for act in acts] == [False, bool(besides)]
        assert late.question not in (None, first)
    folded = await cluster.folded(task_id)
    assert folded.n == before + besides
    assert set(folded.messages) == {"m1", "a1"}
    assert folded.state == S.TASK_STATE_INPUT_REQUIRED


async def test_no_suspect_is_given_up_beside_another_that_takes_long(cluster, monkeypatch):
    """After a while the next one begins beside it: then the death of their process proves nothing of either."""
    monkeypatch.setattr(adoption, "WATCHED_SECONDS", 0.01)
    tasks = []
    for number in range(4):
        shop = Shop()
        engine = await cluster.replica(shop)
        if number == 0:
            tasks = [await send(engine, shop, "slow", f"m{n}") for n in range(2)]
        if number < 3:
            await until(lambda shop=shop: shop.runs == 2)
            if number == 2:
                leases = [(await cluster.folded(task_id)).lease for task_id in tasks]
                assert leases == [TAKEN, TAKEN]
            cluster.kill(engine)
    shop.gate.set()
    for task_id in tasks:
        assert said(await settled(engine, task_id)) == "at last"
