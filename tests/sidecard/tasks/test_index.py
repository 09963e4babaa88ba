"""An owner's list beside the logs: in order, counted."""

from collections import Counter

from sidecard.tasks.index import Line, OwnerList
from sidecard.testing import MemoryStore


async def test_an_owners_list_counts_and_keeps_its_order_over_pages():
    """Newest first from any position, the same in memory and read back; counts add up."""
    store = MemoryStore()
    listing = await OwnerList.load(store, 0, "", "ada")
    states: dict[str, int] = {}
    lines = []
    for at in range(1, 301):
        task_id = f"t{at % 90}"
        line = Line(task_id, "c", states.get(task_id, 0), 1 + at % 3, at)
        states[task_id] = line.state
        lines.append(line)
    for start in range(0, 300, 70):
        listing, writes = listing.stage(reversed(lines[start : start + 70]))
        await store.write([], writes)
    again = await OwnerList.load(store, 0, "", "ada")
    for one in (listing, again):
        assert +one.counts == Counter(states.values())
        found = [line.at async for _, line in one.newest_first(store)]
        assert found == list(range(300, 0, -1))
        assert [line.at async for _, line in one.newest_first(store, 100)] == list(range(100, 0, -1))
