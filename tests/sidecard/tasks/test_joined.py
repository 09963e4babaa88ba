"""Reads that begin at the same time are one read; none is answered with what was read before it began."""

import asyncio

import pytest

from sidecard.errors import StoreUnavailable
from sidecard.tasks.joined import MOST, Joined
from sidecard.testing import MemoryStore
from tests.sidecard.tasks.shop import ticks


class Asked(MemoryStore):
    """Keeps what it is asked for, and answers while it is `open`."""

    def __init__(self):
        super().__init__()
        self.asked = []
        self.open = asyncio.Event()
        self.open.set()

    async def read(self, keys):
        self.asked.append(list(keys))
        found = await super().read(keys)
        await self.open.wait()
        return found


@pytest.fixture
def store():
    made = Asked()
    made.data = {key: key.encode() for key in "abc"}
    return made


async def test_what_is_asked_for_at_the_same_time_is_read_at_once(store):
    """A key that two ask for is read once; each gets what it asked for."""
    joined = Joined(store)
    found = await asyncio.gather(joined.read("ab"), joined.read("bx"), joined.read("c"))
    assert found == [{"a": b"a", "b": b"b"}, {"b": b"b"}, {"c": b"c"}]
    assert store.asked == [["a", "b", "x", "c"]]


async def test_so_many_reads_join_and_no_more(store):
    """What they bring is in memory together, and an answer has its limits."""
    joined = Joined(store)
    found = await asyncio.gather(*(joined.read([f"k{n}", "a"]) for n in range(2 * MOST + 1)))
    assert found == [{"a": b"a"}] * (2 * MOST + 1)
    assert [len(keys) for keys in store.asked] == [MOST + 1, MOST + 1, 2]


async def test_who_comes_later_reads_anew(store):
    """The store may have answered already what is on its way."""
    joined = Joined(store)
    store.open.clear()
    first = asyncio.create_task(joined.read("a"))
    await ticks(5)
    store.data["a"] = b"new"
    second = asyncio.create_task(joined.read("a"))
    await ticks(5)
    store.open.set()
    assert await first == {"a": b"a"}
    assert await second == {"a": b"new"}


async def test_a_reader_that_goes_away_takes_the_others_nothing(store):
    """It is the read of all of them."""
    joined = Joined(store)
    store.open.clear()
    gone, waiting = asyncio.create_task(joined.read("a")), asyncio.create_task(joined.read("b"))
    await ticks(5)
    gone.cancel()
    await ticks(5)
    store.open.set()
    assert await waiting == {"b": b"b"}
    assert gone.cancelled()


async def test_all_learn_that_the_store_is_down(store):
    """And whoever comes then asks it again."""
    joined = Joined(store)
    store.down = True
    results = await asyncio.gather(joined.read("a"), joined.read("b"), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 2
    store.down = False
    assert await joined.read("a") == {"a": b"a"}
