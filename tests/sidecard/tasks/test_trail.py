"""The audit's trail: numbered without a gap over checkpoints, restarts, dead replicas; and what breaks its chain."""

import asyncio
import contextlib

import msgpack
import pytest

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks import replicas, retention, slots
from sidecard.tasks.act import Act, unpack
from sidecard.tasks.audit_log import in_order, read_audit
from sidecard.tasks.engine import Engine, system_clock
from sidecard.tasks.retention import Keep, Retention
from sidecard.tasks.slot_entry import SlotEntry, SlotHead, slot_key
from sidecard.tasks.slots import Slot
from sidecard.tasks.trail import Page, audit_key, chained
from sidecard.testing import KEY, FakeAgents, MemoryStore, caller, message, started
from tests.sidecard.tasks.shop import Shop, idle, send
from tests.sidecard.tasks.test_faults import FAULTS, FaultyStore

DAY = 86_400_000


async def does(engine, shop, message_id, *, by="ada"):
    """A message that somebody sends, and its record."""
    sent = message(message_id=message_id, data={"what": "hat"})
    act = Act("SendMessage", caller=by)
    await engine.intake.create(caller(shop.agent, by), "", shop.skill("look"), sent, act=act)
    return act


async def whole(store):
    """All that is recorded, without a gap, and with nothing wrong."""
    trails = await read_audit(store, verify=True)
    assert [trail.problems for trail in trails] == [[] for _ in trails]
    for trail in trails:
        assert len({one.number for one in trail.records}) == len(trail.records) <= trail.number
    return [one.act for one in in_order(trails)]


async def problems(store):
    return [problem for trail in await read_audit(store, verify=True) for problem in trail.problems]


@pytest.mark.parametrize("atomic", [True, False])
async def test_records_go_into_pages_at_checkpoints(monkeypatch, atomic):
    """In order, each once; a restart goes on behind the last."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 4)
    shop, store = Shop(), MemoryStore(atomic=atomic)
    for start in (0, 10):
        async with started(shop.agent, store) as engine:
            for n in range(10):
                await does(engine, shop, f"m{start + n}", by=f"c{start + n}")
    assert [act.caller for act in await whole(store)] == [f"c{n}" for n in range(20)]
    assert sum(key.startswith("audit:") for key in store.data) >= 3
    [trail] = await read_audit(store)
    assert [one.number for one in trail.records] == list(range(1, 21))
    assert len({one.replica for one in trail.records}) == 2


async def test_many_reads_make_a_checkpoint_due(monkeypatch):
    """What is in no page yet is bounded, also where nothing is listed."""
    monkeypatch.setattr(slots, "CHECKPOINT_RECORDS", 10)
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        for n in range(30):
            engine.journal.saw(Act("GetTask", caller=f"c{n}"))
            await engine.journal.flush(5)
        assert len(engine.journal.slot.trail.recent) <= 10
    assert len(await whole(store)) == 30


async def test_a_dead_replicas_trail_goes_on(monkeypatch):
    """Whoever takes its slot over continues its numbers and its chain; all replicas' records come in one order."""
    monkeypatch.setattr(replicas, "DEAD_SECONDS", 0.2)
    monkeypatch.setattr(replicas, "BEAT_SECONDS", 0.05)
    shop, store = Shop(), MemoryStore(shared=True)
    dying = MemoryStore(shared=True)
    dying.data = store.data
    first = engine_on(shop, dying)
    await first.start()
    await does(first, shop, "m1", by="before")
    dying.down = True
    async with started(shop.agent, store) as survivor:
        await does(survivor, shop, "m2", by="beside")
        await until_free(store)
        async with started(shop.agent, store) as third:
            assert third.journal.slot.number == 0
            await does(third, shop, "m3", by="after")
            assert third.journal.slot.trail.number == 2
    assert [act.caller for act in await whole(store)] == ["before", "beside", "after"]
    await first.stop(0)


def engine_on(shop, store, clock=system_clock, keep=None):
    return Engine(
        shop.agent,
        store,
        task_id_key=KEY,
        delegator=FakeAgents(),
        scopes_of=lambda _: shop.agent.scopes,
        clock=clock,
        keep=keep,
    )


async def until_free(store):
    async with asyncio.timeout(20):
        while store.data.get("beat:0") != replicas.FREE:  # noqa: ASYNC110 -- it is the store that changes
            await asyncio.sleep(0.01)


@pytest.fixture
async def kept(monkeypatch):
    """A store with an audit in three pages and an entry."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 3)
    shop, store = Shop(), MemoryStore(atomic=False)
    async with started(shop.agent, store) as engine:
        trail, n = engine.journal.slot.trail, 0
        while len(trail.pages) < 3 or not trail.recent:
            n += 1
            await does(engine, shop, f"m{n}", by=f"c{n}")
        await idle(engine)
        snapshot = MemoryStore(atomic=False)
        snapshot.data = dict(store.data)
    assert len(await whole(snapshot)) == n
    return snapshot


def page(store, number, **changed):
    values = Page.unpack(store.data[audit_key(0, number)])
    made = Page(**({name: getattr(values, name) for name in Page.__slots__} | changed))
    store.data[audit_key(0, number)] = made.pack()


async def test_a_record_that_was_altered_is_noticed(kept):
    """In a page, and in an entry that is in no page yet."""
    records = list(Page.unpack(kept.data[audit_key(0, 2)]).records)
    altered = msgpack.unpackb(records[0])
    altered[2] = "mallory"
    page(kept, 2, records=[msgpack.packb(altered), *records[1:]])
    [told] = await problems(kept)
    assert "something was altered" in told


async def test_a_record_that_was_taken_out_is_noticed(kept):
    """Also the last of a page, and when the page behind is told another beginning."""
    records = list(Page.unpack(kept.data[audit_key(0, 2)]).records)
    page(kept, 2, records=records[:-1])
    assert any("some are missing" in told for told in await problems(kept))
    following = Page.unpack(kept.data[audit_key(0, 3)])
    page(kept, 3, first=following.first - 1)
    assert await problems(kept)


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_page_that_was_taken_out_is_noticed(kept, number):
    """The first, the last, and one between."""
    del kept.data[audit_key(0, number)]
    assert f"page {number} is missing" in await problems(kept)
    assert f"page {number} is missing" in [p for trail in await read_audit(kept) for p in trail.problems]


async def test_a_page_of_another_slot_is_no_substitute(kept):
    """Chains begin with the slot's own name."""
    shop, other = Shop(), MemoryStore()
    async with started(shop.agent, other) as engine:
        for n in range(3):
            await does(engine, shop, f"m{n}")
    stolen = Page.unpack(other.data[audit_key(0, 1)])
    page(kept, 1, records=stolen.records)
    assert await problems(kept)


async def test_an_entry_that_was_altered_is_noticed(kept):
    """What no checkpoint has moved yet is chained too."""
    slot = await Slot.load(kept, 0)
    place = next(n for n in range(slot.n, 0, -1) if SlotEntry.unpack(kept.data[slot_key(0, n)]).link.records)
    values = msgpack.unpackb(kept.data[slot_key(0, place)])
    altered = msgpack.unpackb(values[7][0][0])
    altered[2] = "mallory"
    values[7][0][0] = msgpack.packb(altered)
    kept.data[slot_key(0, place)] = msgpack.packb(values)
    assert any("something was altered" in told for told in await problems(kept))


async def test_without_the_chain_an_alteration_would_not_be_noticed(kept, monkeypatch):
    """The twin: a digest that does not depend on the records says nothing."""
    monkeypatch.setattr("sidecard.tasks.audit_log.chained", lambda digest, records: MATCHES)
    records = list(Page.unpack(kept.data[audit_key(0, 2)]).records)
    page(kept, 2, records=[records[0].replace(b"c", b"d"), *records[1:]])
    assert chained(b"", records) != chained(b"", [*records, b""])
    assert not any("altered" in told for told in await problems(kept))


class _Matches(bytes):
    """Equal to any digest."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


MATCHES = _Matches(b"any")


# -- being forgotten --------------------------------------------------------------------------------------------------


async def test_old_pages_are_forgotten_and_the_rest_is_still_whole(monkeypatch):
    """Page by page, from the first; what is left still chains, and goes on."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 3)
    monkeypatch.setattr(retention, "AUDIT_PAGES", 2)
    shop, store, ahead = Shop(), MemoryStore(), 0
    async with started(shop.agent, store) as engine:
        engine.keep = Keep(days=0, audit_days=7)

        async def sweep() -> None:
            sweeper = Retention(engine.journal, engine.slots, engine.keep, lambda: system_clock() + ahead)
            while await sweeper.step():
                if sweeper._audit_due > system_clock() + ahead:
                    return

        for n in range(20):
            await does(engine, shop, f"m{n}", by=f"c{n}")
        await sweep()
        assert len(await whole(store)) == 20
        ahead = 8 * DAY
        await sweep()
        assert await whole(store) == []
        assert not [key for key in store.data if key.startswith("audit:")]
        await does(engine, shop, "m20", by="c20")
        assert engine.journal.slot.trail.number == 21
    assert [act.caller for act in await whole(store)] == ["c20"]


async def test_what_is_young_is_kept(monkeypatch):
    """Also in the page that begins with something old: a record is kept for as long as was promised."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 3)
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        now = system_clock()
        for n, age in enumerate((9, 9, 9, 9, 9, 1, 1, 1, 1)):
            engine.journal.saw(Act("GetTask", caller=f"c{n}", at=now - age * DAY))
            await engine.journal.flush(5)
        keep = Keep(days=30, audit_days=7)
        sweeper = Retention(engine.journal, engine.slots, keep, system_clock)
        await sweeper.step()
        left = await whole(store)
    assert len([act for act in left if act.at > now - 7 * DAY]) == 4
    assert len(left) < 9


async def test_a_store_of_a_version_without_an_audit_is_taken_over():
    """Its slot's entries and head are read as they are, and the trail begins."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "look")
    for key, value in list(store.data.items()):
        if key.startswith("slot:"):
            _, *values = msgpack.unpackb(value)
            store.data[key] = msgpack.packb([1, *values[:-1]])
    assert SlotHead.unpack(store.data["slot:0"]).audit.number == 0
    async with started(shop.agent, store) as engine:
        await does(engine, shop, "m2")
        async with engine.borrow(task_id) as live:
            assert live is not None
    assert len(await whole(store)) == 1


# -- whatever the store does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("atomic", [True, False])
async def test_the_audit_has_what_was_acknowledged_whatever_the_store_does(monkeypatch, atomic, fault):
    """A fault at each single operation: each acknowledged message has its record, once, and the chain holds."""
    monkeypatch.setattr(slots, "CHECKPOINT_ENTRIES", 3)
    monkeypatch.setattr("sidecard.tasks.patience.FIRST_PAUSE", 0.0005, raising=False)
    for at in range(1, 40):
        shop, data = Shop(), {}
        store = FaultyStore(data, atomic=atomic)
        engine = engine_on(shop, store)
        await engine.start()
        store.arm(at, fault)
        acknowledged = []
        with contextlib.suppress(StoreUnavailable, TaskConflict, TimeoutError):
            for n in range(8):
                sending = asyncio.create_task(does(engine, shop, f"m{n}", by=f"c{n}"))
                died = asyncio.create_task(store.died.wait())
                await asyncio.wait({sending, died}, return_when=asyncio.FIRST_COMPLETED)
                died.cancel()
                if not sending.done():
                    sending.cancel()
                    break
                acknowledged.append((await sending).caller)
        await engine.stop(0)
        later = FaultyStore(data, atomic=atomic)
        again = engine_on(shop, later)
        await again.start()
        await does(again, shop, "last", by="last")
        await again.stop(0)
        told = [act.caller for act in await whole(later)]
        assert len(set(told)) == len(told)
        assert set(acknowledged) | {"last"} <= set(told)
        if store.operations < at:
            break


def test_a_record_is_read_as_it_was_written():
    """Each field in its place."""
    values = {name: name for name in ("caller", "identity", "subject", "tenant", "task", "skill", "right", "outcome")}
    act = Act("GetTask", at=7, **values, trace="0a" * 16, count=3)
    at, replica, read = unpack(act.pack("1.2"))
    assert (at, replica) == (7, "1.2")
    assert isinstance(read, Act)
    assert [getattr(read, name) for name in Act.__slots__] == [getattr(act, name) for name in Act.__slots__]
