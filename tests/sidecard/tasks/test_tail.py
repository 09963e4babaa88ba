"""Reading on in tasks that other replicas write to: one read for all, as often as there is news."""

import asyncio
from types import SimpleNamespace

import pytest

from sidecard.errors import StoreUnavailable
from sidecard.tasks import tail as tail_module
from sidecard.tasks.entry import log_key
from sidecard.tasks.tail import Tail
from sidecard.testing import MemoryStore


class Followed(SimpleNamespace):
    """A task that another replica runs, followed here."""

    def __init__(self, task_id):
        folded = SimpleNamespace(n=1, must_move=True)
        super().__init__(task_id=task_id, folded=folded, owned=False, busy=True, writing=False, lost=None, heard=[])

    def hear(self, data):
        self.heard.append(data)
        self.folded.n += 1


class Store(MemoryStore):
    """Counts reads."""

    def __init__(self):
        super().__init__(shared=True)
        self.reads = 0

    async def read(self, keys):
        self.reads += 1
        return await super().read(keys)


async def test_all_followed_tasks_take_one_read():
    """Not one each; what is new is heard in order, as far as it is there."""
    store = Store()
    lives = [Followed(f"t{n}") for n in range(100)]
    for n in (2, 3, 4):
        store.data[log_key("t7", n)] = b"%d" % n
    assert await Tail(store, lives).read(lives)
    assert store.reads == 1
    assert lives[7].heard == [b"2", b"3", b"4"]
    assert not any(live.heard for live in lives if live is not lives[7])
    assert not await Tail(store, lives).read(lives)


@pytest.fixture
def pauses(monkeypatch):
    """How long it rests; the test ends it after so many rests."""
    rests = []

    async def sleep(seconds):
        rests.append(seconds)
        if callable(then := pauses_then.get(len(rests))):
            then()
        if len(rests) > 40:
            raise asyncio.CancelledError

    pauses_then: dict[int, object] = {}
    monkeypatch.setattr(tail_module, "asyncio", SimpleNamespace(sleep=sleep))
    return SimpleNamespace(rests=rests, then=pauses_then)


async def test_it_looks_less_often_while_nothing_happens_and_at_once_again_when_something_does(pauses):
    """25 ms after news, up to a second without; a store that does not answer is asked again."""
    store, live = Store(), Followed("t")
    lives = SimpleNamespace(values=lambda: [live])

    def news():
        store.data[log_key("t", live.folded.n + 1)] = b"news"

    def down():
        store.down = True

    def up():
        store.down = False

    pauses.then.update({20: news, 30: down, 32: up, 35: news})

    async def read(keys):
        if store.down:
            raise StoreUnavailable("down")
        return {key: store.data[key] for key in keys if key in store.data}

    store.read = read
    with pytest.raises(asyncio.CancelledError):
        await Tail(store, lives).run()
    assert pauses.rests[:2] == [0.025, 0.025]
    assert max(pauses.rests) == 1.0
    assert pauses.rests[19] == 1.0
    assert pauses.rests[20] == 0.025
    assert pauses.rests[35] == 0.025
    assert len(live.heard) == 2


async def test_nothing_is_read_while_nothing_is_followed(pauses):
    """And whoever begins to follow waits 25 ms at most."""
    store = Store()
    with pytest.raises(asyncio.CancelledError):
        await Tail(store, SimpleNamespace(values=list)).run()
    assert store.reads == 0
    assert set(pauses.rests) == {0.025}
