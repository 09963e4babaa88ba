"""Group commit: what goes together, what is sent again, and when nothing more is accepted."""

import asyncio

import pytest

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks import journal as journal_module
from sidecard.tasks.act import Act
from sidecard.tasks.batch import Append
from sidecard.tasks.entry import log_key
from sidecard.tasks.index import Line
from sidecard.tasks.journal import Journal
from sidecard.tasks.slots import Slot
from sidecard.testing import MemoryStore
from tests.sidecard.tasks.shop import ticks, until


class Recorder(MemoryStore):
    """Keeps every write that it is sent; `closed` holds them back."""

    def __init__(self, *, atomic=True):
        super().__init__(shared=True, atomic=atomic)
        self.sent = []
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, creates, upserts, deletes=()):
        self.sent.append((list(creates), dict(upserts)))
        await self.open.wait()
        await super().write(creates, upserts, deletes)

    def logs(self):
        """The task entries of each write, leaving out those without any."""
        batches = [[key for key, _ in creates if key.startswith("log:")] for creates, _ in self.sent]
        return [batch for batch in batches if batch]


def entry(task_id, data=b"entry", *, n=1, contested=False, hints=None):
    line = Line(task_id, "c", 0, 1, n)
    return Append(task_id, n, data, ("", "ada"), line, True, contested, hints=hints or {})


@pytest.fixture(params=[True, False], ids=["transactions", "key by key"])
async def store(request):
    return Recorder(atomic=request.param)


@pytest.fixture
async def journal(store):
    slot = await Slot.load(store, 0)
    await slot.claim("0.1", beat=b"0.1 0")
    made = Journal(store)
    made.start(slot)
    store.sent.clear()
    yield made
    store.open.set()
    await made.stop()


async def test_what_comes_while_a_write_is_in_flight_goes_into_the_next_one(store, journal):
    """One write at a time; all that waits goes together, listed before anybody hears of it."""
    store.open.clear()
    first = journal.append(entry("a"))
    await until(lambda: store.sent)
    rest = [journal.append(entry(name)) for name in "bcde"]
    await ticks(20)
    assert len(store.sent) == 1
    assert not first.done()
    store.open.set()
    await asyncio.gather(first, *rest)
    assert store.logs() == [[log_key("a", 1)], [log_key(name, 1) for name in "bcde"]]
    assert journal.slot.todo.all == set("abcde")
    assert (await Slot.load(store, 0)).todo.all == set("abcde")


async def test_what_others_may_contest_goes_by_itself(store, journal):
    """So that a storm of duplicates rejects nobody else's entries."""
    store.data[log_key("taken", 1)] = b"somebody else's"
    store.open.clear()
    first = journal.append(entry("first"))
    await until(lambda: store.sent)
    contested = [journal.append(entry(name, contested=True)) for name in ("taken", "free")]
    plain = [journal.append(entry(name, n=2)) for name in ("one", "two")]
    store.open.set()
    await asyncio.gather(first, *plain, contested[1])
    with pytest.raises(TaskConflict):
        await contested[0]
    for batch in store.logs():
        assert not ({log_key("taken", 1), log_key("free", 1)} & set(batch) and any(key.endswith(":2") for key in batch))
    assert sum(log_key("one", 2) in batch for batch in store.logs()) == 1, "it was never sent twice"
    assert "taken" not in (await Slot.load(store, 0)).todo.all


async def test_a_batch_is_no_larger_than_stores_take(store, journal):
    """About a megabyte, however much waits; one entry that is larger goes alone."""
    store.open.clear()
    first = journal.append(entry("first"))
    await until(lambda: store.sent)
    rest = [journal.append(entry(f"t{n}", b"x" * 400_000)) for n in range(5)]
    rest.append(journal.append(entry("large", b"x" * 3_000_000)))
    store.open.set()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in store.logs()] == [1, 2, 2, 1, 1]


@pytest.mark.parametrize("lost", ["answer", "request"])
async def test_a_write_of_unknown_outcome_is_sent_again_byte_for_byte(store, journal, lost):
    """Or not at all, if it turns out to be stored: an entry is in its log once, as it was sent first."""
    hint = {"head:a": b"1"}
    if lost == "answer":
        store.lose_answers = 1
    else:
        store.down = True
    done = journal.append(entry("a", hints=hint))
    await until(lambda: store.sent)
    await ticks(20)
    store.down = False
    await asyncio.wait_for(done, 5)
    sent = [(key, value) for creates, _ in store.sent for key, value in creates]
    assert len({value for key, value in sent if key == log_key("a", 1)}) == 1
    assert len({value for key, value in sent if key.startswith("slot:0:")}) == 1
    assert store.data["head:a"] == b"1"
    if lost == "answer":
        assert len(sent) == 2, "what is there is not sent again"


async def test_an_act_is_recorded_when_it_is_stored(store, journal):
    """Also one of a kind that is being written just then; with it goes whatever waits."""
    journal.saw(Act("GetTask"))
    first, second = [Act("RevealTask", caller="ada") for _ in range(2)]
    store.open.clear()
    recording = [asyncio.create_task(journal.record(first))]
    await until(lambda: store.sent)
    recording.append(asyncio.create_task(journal.record(second)))
    await ticks(20)
    assert not any(one.done() for one in recording)
    store.open.set()
    await asyncio.gather(*recording)
    assert (first.recorded, second.recorded) == (True, True)
    assert (await Slot.load(store, 0)).trail.number == 3


@pytest.mark.parametrize("why", ["it takes too long", "the agent stops", "it was taken for dead"])
async def test_who_can_not_be_sure_of_a_record_is_told(store, journal, monkeypatch, why):
    """In time, or at once when this replica writes no more; the act is not taken for recorded."""
    monkeypatch.setattr(journal_module, "RECORD_SECONDS", 0.05 if why == "it takes too long" else 60)
    store.open.clear()
    act = Act("RevealTask", caller="ada")
    recording = asyncio.create_task(journal.record(act))
    await until(lambda: store.sent)
    if why == "the agent stops":
        await journal.stop()
    elif why == "it was taken for dead":
        [*_, (slot_entry, _)], _ = store.sent[0]
        store.data[slot_entry] = b"somebody else's"
        store.open.set()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(recording, 5)
    assert not act.recorded


@pytest.mark.parametrize("why", ["age", "bytes"])
async def test_what_waits_for_the_store_is_bounded_in_age_and_bytes(store, journal, monkeypatch, why):
    """Beyond that nothing more is accepted; when the store keeps up again everything that waits is stored."""
    monkeypatch.setattr(journal_module, "MAX_WAITING_SECONDS", 0.0 if why == "age" else 60.0)
    monkeypatch.setattr(journal_module, "MAX_WAITING_BYTES", 1_000_000 if why == "age" else 1_000)
    journal.admit()
    store.open.clear()
    waiting = [journal.append(entry("a", b"x" * 600))]
    if why == "bytes":
        journal.admit()
        waiting.append(journal.append(entry("b", b"x" * 600)))
    with pytest.raises(StoreUnavailable, match="nothing was accepted"):
        journal.admit()
    store.open.set()
    await asyncio.gather(*waiting)
    await until(lambda: not journal._in_flight.appends)
    journal.admit()
    monkeypatch.setattr(journal_module, "MAX_WAITING_SECONDS", 60.0)
    store.open.clear()
    journal.append(entry("c", b"x" * 600))
    journal.admit()  # what was stored counts no more


async def test_an_entry_speaks_of_what_is_stored_only(store, journal):
    """Hints are written with a later entry, after the one that they speak of."""
    await journal.append(entry("a", hints={}))
    assert "head:a" not in store.data
    await journal.append(entry("a", n=2, hints={"head:a": b"1"}))
    assert store.data["head:a"] == b"1"
