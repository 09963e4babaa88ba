"""What a replica stored that was taken for dead: known once its slot's next holder has decided what it takes back."""

import asyncio

from sidecard.tasks import late
from sidecard.tasks.entry import log_key
from sidecard.tasks.late import Late
from tests.sidecard.tasks.shop import ticks
from tests.sidecard.tasks.test_announced import OWNER, Frail, announce, entry, taken_over


async def test_what_comes_before_the_decision_is_listed_and_what_comes_after_is_not(monkeypatch):
    """Looking too early would miss what is taken back a moment later; what was never stored is nobody's."""
    monkeypatch.setattr(late, "LOOK_SECONDS", 0)
    store = Frail()
    before, after, never = (entry(name, name.encode()) for name in ("before", "after", "never"))
    appends = [before, after, never]
    await announce(store, *appends, holder="0.1", dies_before=log_key("before", 1))
    written = Late(0, appends)
    looking = asyncio.create_task(written.stored(store))
    store.data[before.key] = before.data
    await ticks(50)
    assert not looking.done()
    slot = await taken_over(store)
    store.data[after.key] = after.data
    assert slot.todo.all == {"before"}
    assert {append.task_id for append in await asyncio.wait_for(looking, 5)} >= {"before"}
    stored = await written.stored(store)
    assert [append.task_id for append in stored] == ["before", "after"]
    assert await written.unlisted(store, stored) == {OWNER: [after.line]}
    assert await written.unlisted(store, []) == {}


async def test_what_others_announce_there_later_is_not_waited_for():
    """Also of the same task: the slot may rest there for as long as that does."""
    store = Frail()
    lost, stored = entry("lost", b"its"), entry("stored", b"its")
    await announce(store, lost, stored, holder="0.1", dies_before=lost.key)
    await taken_over(store)
    await announce(store, entry("lost", b"another's"), holder="0.9")
    store.data[stored.key] = stored.data
    found = await asyncio.wait_for(Late(0, [lost, stored]).stored(store), 5)
    assert found == [stored]
