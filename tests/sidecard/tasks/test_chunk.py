"""Chunks of a text that are made faster than they are stored become one, and what is on its way is left alone."""

import asyncio

import pytest
from a2a.types import Artifact

from sidecard import Task
from sidecard.tasks import writer as writer_module
from sidecard.tasks.binding import artifact_of
from sidecard.tasks.chunk import LONG, Chunk, divided
from sidecard.tasks.loading import read_log
from sidecard.tasks.pending import ENTRY_RECORDS, Pending
from sidecard.testing import MemoryStore, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, send, settled, text_of, ticks, until
from tests.sidecard.tasks.test_live import Gated
from tests.sidecard.tasks.test_replay import made, replayed


def chunk(text, number, *, name="tale", append=True, last=False, branch="0"):
    return ["artifact", artifact_of(name, name, text).SerializeToString(), append, last, branch, number]


def waiting(*records):
    """The records of the next entry, when these are appended one by one."""
    pending = Pending()
    for record in records:
        pending.add((record,), 100)
    return pending.next_entry()[1]


def text(record):
    return text_of(Artifact.FromString(record[1]))


def test_chunks_of_one_text_that_wait_together_are_one_record():
    """With all of the text in one part, the number of the last, and whether it is the last there is."""
    joined = waiting(chunk("once ", 1), chunk("upon ", 2), chunk("a time", 4, last=True))
    assert joined == [[*chunk("once upon a time", 4, last=True), [[1, 5], [2, 5], [4, 6]]]]
    assert list(divided(joined[0])) == [chunk("once ", 1), chunk("upon ", 2), chunk("a time", 4, last=True)]


@pytest.mark.parametrize(
    "other",
    [
        chunk("b", 2, name="another"),
        chunk("b", 2, branch="1"),
        chunk("b", 2, append=False),
        ["artifact", artifact_of("tale", "tale", {"is": "data"}).SerializeToString(), True, False, "0", 2],
        ["status", 1, 2, b"", "0", 2],
    ],
    ids=["another text", "another branch", "a whole artifact", "data", "a status"],
)
def test_nothing_else_joins_a_text(other):
    """Nor does what follows it join across it: events keep their order."""
    assert waiting(chunk("a", 1), other, chunk("c", 3)) == [chunk("a", 1), other, chunk("c", 3)]


def test_nothing_joins_a_text_behind_its_last_chunk():
    """It begins anew."""
    assert waiting(chunk("a", 1, last=True), chunk("b", 2)) == [chunk("a", 1, last=True), chunk("b", 2)]


def test_a_long_text_is_told_in_several_events():
    """No event grows without bound because the store is slow."""
    half = "x" * (LONG // 2)
    assert list(map(len, map(text, waiting(chunk(half, 1), chunk(half, 2), chunk("y", 3))))) == [LONG, 1]


def test_nothing_joins_what_is_being_written():
    """A sent entry is frozen: what is made meanwhile goes into the next one."""
    pending = Pending()
    pending.add((chunk("a", 1),), 100)
    count, sent, _ = pending.next_entry()
    pending.add((chunk("b", 2),), 100)
    pending.add((chunk("c", 3),), 100)
    assert sent == [chunk("a", 1)]
    pending.stored(count)
    assert [text(record) for record in pending.next_entry()[1]] == ["bc"]


def test_what_lost_a_race_is_made_anew_with_what_came_since():
    """Nothing of it is on its way any more."""
    pending = Pending()
    pending.add((chunk("a", 1),), 100)
    pending.next_entry()
    pending.skip_dropped()
    pending.add((chunk("b", 2),), 100)
    assert [text(record) for record in pending.next_entry()[1]] == ["ab"]


def test_joined_chunks_count_each_against_what_may_wait():
    """A skill that is far ahead of the store waits for it, however little its chunks say."""
    pending = Pending()
    for number in range(ENTRY_RECORDS):
        assert not pending.full
        pending.add((chunk("a", number),), 1)
    assert pending.full
    pending.stored(pending.next_entry()[0])
    assert not pending.full


def test_a_record_says_all_of_it_however_often_it_is_asked():
    """An entry that lost a race is made again."""
    record = chunk("a", 1)
    first, second = Chunk.of(record), Chunk.of(chunk("b", 2))
    assert first is not None
    assert second is not None
    assert first.join(second)
    first.write()
    first.write()
    assert record == [*chunk("ab", 2), [[1, 1], [2, 1]]]


@pytest.fixture
def telling(monkeypatch):
    """A shop whose skill says what it is told to, and an hour in which chunks wait for more."""
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 3_600)
    shop, says = Shop(), asyncio.Queue()

    @shop.agent.skill(scope="say", idempotent=False)
    async def say(order: Order, task: Task) -> Receipt:
        """Say it."""
        while said := await says.get():
            if said == "step":
                await task.once("step", _nothing)
            else:
                await task.chunk("tale", said)
        return Receipt(said="done")

    return shop, says


async def _nothing() -> str:
    return ""


async def _writing(engine, shop, says, store):
    """A task whose first chunk is being written, and goes on being so while the store is not open."""
    task_id = await send(engine, shop, "say")
    live = engine._lives.values()[0]
    await until(lambda: says._getters and not live.writing)
    store.open.clear()
    says.put_nowait("a")
    await until(lambda: store.waiting)
    return task_id, live


async def _goes_on(says, store):
    """It makes a second one, and then the store writes."""
    says.put_nowait("b")
    await until(lambda: says.empty() and says._getters)
    store.open.set()


async def _ahead(engine, shop, says, store):
    """A task that has made a chunk while its first one was being written, and that is stored now."""
    task_id, live = await _writing(engine, shop, says, store)
    await _goes_on(says, store)
    await until(lambda: not store.waiting and len(live._pending) == 1)
    return task_id, live


async def test_a_stream_that_is_ahead_of_the_store_waits_for_more(telling):
    """What was made during a write is not written at once: an entry of its own would be too much for it."""
    (shop, says), store = telling, Gated()
    async with started(shop.agent, store) as engine:
        task_id, live = await _ahead(engine, shop, says, store)
        await ticks(50)
        assert len(live._pending) == 1
        assert live.writing, "or what another replica writes would be taken in without what waits"
        says.put_nowait("c")
        says.put_nowait("")
        task = await settled(engine, task_id)
    assert [part.text for part in task.artifacts[0].parts] == ["abc"]


async def test_who_waits_already_does_not_wait_for_more(telling):
    """A message, say, that came during the write: it is in the entry that follows."""
    (shop, says), store = telling, Gated()
    async with started(shop.agent, store) as engine:
        task_id, live = await _writing(engine, shop, says, store)
        live.append(["unpush", "none"])
        waiting = asyncio.create_task(live.stored())
        await ticks(5)
        await _goes_on(says, store)
        await asyncio.wait_for(waiting, 5)
        says.put_nowait("")
        await settled(engine, task_id)


async def test_a_stream_that_is_far_ahead_is_written_whatever_may_come(telling):
    """A skill that makes more than may wait goes on when that is stored, not when the time is over."""
    (shop, says), store = telling, Gated()
    async with started(shop.agent, store) as engine:
        task_id, _ = await _ahead(engine, shop, says, store)
        for _ in range(ENTRY_RECORDS):
            says.put_nowait("x")
        await until(lambda: says.empty() and says._getters)
        says.put_nowait("")
        task = await settled(engine, task_id)
    assert text_of(task.artifacts[0]) == "ab" + "x" * ENTRY_RECORDS


async def test_what_somebody_waits_for_is_written_at_once(telling):
    """A step that must be stored before it is done takes along what waited."""
    (shop, says), store = telling, Gated()
    async with started(shop.agent, store) as engine:
        task_id, live = await _ahead(engine, shop, says, store)
        says.put_nowait("step")
        await until(lambda: not live._pending)
        says.put_nowait("")
        await settled(engine, task_id)


async def test_a_replay_knows_joined_chunks_again():
    """It makes them one by one, and the log has them as one; another text is found all the same."""
    shop, store = Shop(), MemoryStore()
    task_id = await made(shop, store, "tell")
    async with started(shop.agent, store) as engine:
        longer = await send(engine, shop, "tell", "m2", data={"what": "x", "count": 40})
        await settled(engine, longer)
    assert (await replayed(shop, store, task_id)).agrees
    outcome = await replayed(shop, store, longer)
    _, entries = await read_log(store, longer)
    assert sum(record[0] == "artifact" for entry in entries for record in entry.records) < 40
    assert outcome.agrees
    assert outcome.outputs == 41
    other = Shop()
    del other.agent.skills["tell"]

    @other.agent.skill(scope="tell", idempotent=False)
    async def tell(order: Order, task: Task) -> str:
        """Say something else."""
        for number in range(order.count):
            await task.chunk("tale", f"{number + (number == 7)} ", last=number == order.count - 1)
        return "done"

    assert not (await replayed(other, store, longer)).agrees
