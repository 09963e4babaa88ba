"""How far receivers have been told, on its way to the store, and what keeps a task on the outbox."""

import asyncio

from sidecard.tasks.batch import Append
from sidecard.tasks.journal import Journal
from sidecard.tasks.slots import Slot
from sidecard.tasks.told import Due, Told
from sidecard.testing import MemoryStore


async def test_a_task_leaves_the_outbox_only_with_what_is_being_written_told():
    """An entry on its way, which the outbox can't know of yet, keeps it there."""
    store = MemoryStore()
    journal = Journal(store)
    journal.start(await Slot.load(store, 0))
    entries = [Append("t", n, b"x", ("", ""), None, listed=False, contested=False, due=True) for n in (1, 2)]
    await journal.append(entries[0])
    stored = journal.append(entries[1])
    await journal.told(Told("t", through=1, known=1, cursors={"push:t:w": b"1"}))
    await stored
    assert journal.slot.outbox.all == {"t"}
    await journal.told(Told("t", through=2, known=2, cursors={"push:t:w": b"2"}))
    assert journal.slot.outbox.all == set()
    assert store.data["push:t:w"] == b"2"
    await journal.stop()


async def test_cursors_wait_for_a_store_that_is_down():
    """Without hurry."""
    store = MemoryStore()
    journal = Journal(store)
    journal.start(await Slot.load(store, 0))
    tries = 0
    write = store.write

    async def counting(creates, upserts, deletes):
        nonlocal tries
        tries += 1
        await write(creates, upserts, deletes)

    store.write, store.down = counting, True
    told = journal.told(Told("t", through=1, known=1, cursors={"push:t:w": b"1"}))
    await asyncio.sleep(0.1)
    store.down = False
    await told
    assert tries < 6
    await journal.stop()


async def test_an_entry_that_lost_is_due_to_nobody():
    """It was never stored; one that came behind it is."""
    due = Due()
    due.add("t", 2)
    due.add("t", 3)
    due.lost("t", 2)
    assert due.beyond(Told("t", through=2, known=2, cursors={}))
    due.lost("t", 3)
    assert not due.beyond(Told("t", through=2, known=2, cursors={}))
    assert not due
