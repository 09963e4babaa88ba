"""Where a store decides key by key: what a dead replica announced is taken back unless it came true."""

import asyncio

from sidecard.tasks.batch import Append
from sidecard.tasks.entry import log_key
from sidecard.tasks.index import Line
from sidecard.tasks.journal import Journal
from sidecard.tasks.slots import Slot
from sidecard.testing import MemoryStore
from tests.sidecard.tasks.shop import until

OWNER = ("", "ada")


class Frail(MemoryStore):
    """Its replica dies between announcing what is in `dies_before` and writing it."""

    def __init__(self):
        super().__init__(atomic=False, shared=True)
        self.dies_before = ""

    async def write(self, creates, upserts, deletes=()):
        if self.dies_before in [key for key, _ in creates]:
            self.down = True
        await super().write(creates, upserts, deletes)


def entry(task_id, data, *, n=1, before=0, state=1, at=100, listed=True):
    return Append(task_id, n, data, OWNER, Line(task_id, "c", before, state, at), listed, contested=False)


async def announce(store, *appends, holder, dies_before=""):
    """What a replica tells of these before it dies; the last of them may not come true."""
    slot = await Slot.load(store, 0)
    await slot.claim(holder, beat=b"")
    await slot.amend()
    journal = Journal(store)
    journal.start(slot)
    store.dies_before = dies_before
    written = [journal.append(append) for append in appends]
    await until(lambda: store.down or all(each.done() for each in written))
    await journal.stop()
    await asyncio.gather(*written, return_exceptions=True)
    store.down, store.dies_before = False, ""


async def taken_over(store):
    """The slot as its next holder has it."""
    slot = await Slot.load(store, 0)
    before = slot.n
    await slot.claim("0.next")
    await slot.amend()
    await slot.amend()  # there is nothing more of it
    again = await Slot.load(store, 0)
    assert (again.n, again.todo.all) == (slot.n, slot.todo.all)
    assert again.n == before + 2
    return again


async def test_what_another_replica_was_faster_with_is_taken_back():
    """However the clocks of the two stand to each other: a task is on one list, and counted once."""
    store = Frail()
    store.data[log_key("t", 1)] = b"somebody else's"
    await announce(store, entry("t", b"mine"), holder="0.1", dies_before=log_key("t", 1))
    slot = await taken_over(store)
    listing = await slot.lists.of(OWNER)
    assert not any(listing.counts.values())
    assert [line async for line in listing.newest_first(store)] == []
    assert slot.todo.all == set()


async def test_what_nobody_wrote_is_taken_back_and_what_came_true_stays():
    """Also in the same batch: each is looked at for itself. What was to be moved on still is."""
    store = Frail()
    await announce(store, entry("old", b"first"), holder="0.1")
    ended = entry("old", b"end", n=2, before=1, state=3, at=110, listed=False)
    await announce(store, entry("new", b"n"), entry("true", b"t"), ended, holder="0.2", dies_before=log_key("old", 2))
    assert log_key("new", 1) not in store.data
    store.data[log_key("true", 1)] = b"t"
    slot = await taken_over(store)
    listing = await slot.lists.of(OWNER)
    assert {state: count for state, count in listing.counts.items() if count} == {1: 2}
    assert {line.task_id async for _, line in listing.newest_first(store)} == {"old", "true"}
    assert slot.todo.all == {"old", "true"}


async def test_the_same_message_sent_again_in_the_same_moment_is_listed_once():
    """What came true of it stays, though what was taken back has the very same time."""
    store = Frail()
    await announce(store, entry("t", b"first"), holder="0.1")
    await announce(store, entry("t", b"again"), holder="0.2", dies_before=log_key("t", 1))
    slot = await taken_over(store)
    listing = await slot.lists.of(OWNER)
    assert {state: count for state, count in listing.counts.items() if count} == {1: 1}
    assert [line.task_id async for _, line in listing.newest_first(store)] == ["t"]
    assert slot.todo.all == {"t"}
