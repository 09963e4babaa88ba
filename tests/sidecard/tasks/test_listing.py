"""ListTasks over the lists of several slots; what callers see of it is in test_handler."""

from types import SimpleNamespace

import pytest
from a2a.types import ListTasksRequest

from sidecard.tasks.index import Line, OwnerList
from sidecard.tasks.listing import MergedList, list_tasks
from sidecard.testing import MemoryStore, started
from tests.sidecard.tasks.shop import Shop, idle, send, settled


@pytest.mark.parametrize("status", [0, 3], ids=["all", "completed"])
async def test_an_old_line_on_top_of_a_list_hides_nothing(status, monkeypatch):
    """What was stored late is listed late: the lists are in order but for that, and an outdated line may come first."""
    shop = Shop()
    async with started(shop.agent, MemoryStore()) as engine:
        late, other = [await send(engine, shop, "look", name) for name in ("m1", "m2")]
        await idle(engine)
        ats = {}
        for task_id in (late, other):
            await settled(engine, task_id)
            async with engine.borrow(task_id) as live:
                ats[task_id] = live.folded.task.status.timestamp.ToMilliseconds()
        one, _ = OwnerList("a").stage([Line(other, "c", 0, 2, ats[other] - 1)])
        two, _ = OwnerList("b").stage([Line(other, "c", 2, 3, ats[other])])
        two, _ = two.stage([Line(late, "c", 0, 3, ats[late] - 2)])
        two, _ = two.stage([Line(late, "c", 0, 3, ats[late])])

        async def opened(*_):
            return MergedList(SimpleNamespace(store=engine.store), {0: one, 1: two})

        monkeypatch.setattr(MergedList, "open", opened)
        page = await list_tasks(engine, "", "ada", ListTasksRequest(status=status, context_id="c"))
        assert sorted(task.id for task in page.tasks) == sorted([late, other])
        assert page.total_size == 2
