"""How many skills run at once, and whose."""

import asyncio
from dataclasses import replace

import pytest
from a2a.types import TaskState

from sidecard import Agent, Task
from sidecard.callers import Caller
from sidecard.refusals import TooManyRequests
from sidecard.tasks import rights
from sidecard.tasks import run as run_module
from sidecard.tasks import runner as runner_module
from sidecard.tasks.state import ALONE
from sidecard.testing import FakeAgents, MemoryStore, caller, ended, message, started
from tests.sidecard.tasks.shop import Receipt, Shop, answer, idle, said, send, settled, ticks, until

S = TaskState


async def begin(engine, shop, skill, message_id, tenant):
    return await engine.intake.create(
        caller(shop.agent), tenant, shop.skill(skill), message("", message_id, data={"what": "hat"})
    )


async def test_one_tenant_can_not_crowd_out_another():
    """With more tasks than it may run at once it waits for its own, and another's runs at once; all end."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs={"tenant": 2, "replica": 3}) as engine:
        crowd = [await begin(engine, shop, "slow", f"m{n}", "crowd") for n in range(10)]
        await ticks(50)
        assert shop.runs == 2
        assert engine.journal.slot.todo.all == set(crowd), "who waits is stored and listed"
        other = await begin(engine, shop, "buy", "m", "other")
        assert said(await settled(engine, other)) == "paid"
        shop.gate.set()
        for task_id in crowd:
            assert said(await settled(engine, task_id)) == "at last"
        await idle(engine)
        assert not engine._runner._turns._places


async def test_one_caller_can_not_crowd_out_another_in_its_tenant():
    """Also where everybody is in the default tenant."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs={"caller": 2, "tenant": 3, "replica": 9}) as engine:
        crowd = [await begin(engine, shop, "slow", f"m{n}", "") for n in range(10)]
        await ticks(50)
        assert shop.runs == 2
        sent = message("", "m", data={"what": "hat"})
        other = await engine.intake.create(caller(shop.agent, "bob"), "", shop.skill("buy"), sent)
        assert said(await settled(engine, other)) == "paid"
        shop.gate.set()
        for task_id in crowd:
            assert said(await settled(engine, task_id)) == "at last"


@pytest.mark.parametrize("runs", [{"caller": 2}, {"tenant": 2}, {"replica": 2}])
async def test_a_task_is_refused_before_it_is_taken_when_too_many_wait(monkeypatch, runs):
    """And never after: all that were taken end. A message that was taken before is known all the same."""
    monkeypatch.setattr(runner_module, "WAITING", 3)
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs=runs) as engine:
        crowd = [await begin(engine, shop, "slow", f"m{n}", "") for n in range(8)]
        with pytest.raises(TooManyRequests, match=r"too many tasks .* wait to be run here; try again in 5 s"):
            await begin(engine, shop, "slow", "m8", "")
        assert await begin(engine, shop, "slow", "m3", "") == crowd[3]
        assert engine.journal.slot.todo.all == set(crowd), "nothing is left of what was refused"
        shop.gate.set()
        for task_id in crowd:
            assert said(await settled(engine, task_id)) == "at last"
        assert await begin(engine, shop, "slow", "m8", "")
        await idle(engine)


async def test_without_a_bound_any_number_waits(monkeypatch):
    """The twin."""
    monkeypatch.setattr(runner_module, "WAITING", 10**9)
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs={"caller": 1}) as engine:
        crowd = [await begin(engine, shop, "slow", f"m{n}", "") for n in range(60)]
        assert len(set(crowd)) == 60
        shop.gate.set()
        for task_id in crowd:
            await settled(engine, task_id)


async def test_all_tenants_together_are_bounded_too():
    """Many tenants, each within its share."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs={"tenant": 2, "replica": 3}) as engine:
        tasks = [await begin(engine, shop, "slow", f"m{n}", f"tenant {n}") for n in range(10)]
        await ticks(50)
        assert shop.runs == 3
        shop.gate.set()
        for task_id in tasks:
            assert said(await settled(engine, task_id)) == "at last"


async def test_what_a_restart_takes_up_is_bounded_as_well():
    """A dead process's tasks don't all run at once, however many they are."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        tasks = [await begin(engine, shop, "slow", f"m{n}", f"tenant {n}") for n in range(30)]
        await until(lambda: shop.runs == 30)
    again = Shop()
    async with started(again.agent, store, runs={"tenant": 2, "replica": 4}) as engine:
        await until(lambda: again.runs == 4)
        await ticks(200)
        assert again.runs == 4
        again.gate.set()
        for task_id in tasks:
            assert said(await settled(engine, task_id)) == "at last"


async def test_an_idempotent_task_that_has_to_wait_is_stored_meanwhile():
    """Its caller has an id; it runs when there is a place."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs={"tenant": 1, "replica": 1}) as engine:
        slow = await begin(engine, shop, "slow", "m1", "")
        waiting = await begin(engine, shop, "look", "m2", "")
        async with engine.borrow(waiting) as live:
            assert live.folded.state == S.TASK_STATE_SUBMITTED
        shop.gate.set()
        assert said(await settled(engine, waiting)) == "1 hat"
        await settled(engine, slow)


async def test_a_task_that_waits_for_its_turn_can_be_canceled():
    """At once, its skill never runs, and it gives no place back that it never had."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs={"tenant": 1, "replica": 1}) as engine:
        first, second, third = [await begin(engine, shop, "slow", f"m{n}", "") for n in range(3)]
        await ticks(20)
        async with engine.borrow(second) as live:
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
            assert live.folded.state == S.TASK_STATE_CANCELED
        await ticks(20)
        assert shop.runs == 1
        shop.gate.set()
        assert said(await settled(engine, first)) == said(await settled(engine, third)) == "at last"
        assert shop.runs == 2


@pytest.mark.parametrize("skill", ["choose", "through"])
async def test_who_only_waits_takes_no_place_for_long(skill, monkeypatch):
    """For a person, or for another agent's task: so agents that call each other never wait for each other's places."""
    monkeypatch.setattr(run_module, "EVICT_SECONDS", 0.01)
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]}, hold=asyncio.Event())
    async with started(shop.agent, store, agents, runs={"tenant": 1, "replica": 1}) as engine:
        waits = await send(engine, shop, skill, "m1")
        assert said(await settled(engine, await send(engine, shop, "buy", "m2"))) == "paid"
        agents.hold.set()
        if skill == "choose":
            await answer(engine, shop, waits, "red")
        assert said(await settled(engine, waits)) == ("r by ada" if skill == "choose" else "made: a hat")


async def test_a_task_that_is_to_run_alone_waits_for_nobody():
    """Whoever runs it alone watches it meanwhile; it must not stand in line then."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store, runs={"tenant": 1, "replica": 1}) as engine:
        await send(engine, shop, "slow", "m1")
        await until(lambda: shop.runs)
        suspect = await send(engine, shop, "slow", "m2")
        async with engine.borrow(suspect) as live:
            live.run.abandon()
            live.append(["lease", live.replica, ALONE])
            await live.stored()
            engine._move_on(live)
            await until(lambda: shop.runs == 2)


NARROW = frozenset({"look"})


def office():
    """An agent whose skill tells what its caller may do: before it has waited for an answer, and after."""
    agent = Agent(name="office", version="1", description="Tells rights.", publisher="Tests")

    @agent.skill(scope="look", idempotent=False)
    async def rights(text: str, task: Task) -> str:
        """Tell."""
        before = task.caller.scopes
        await task.ask("Go on?")
        return f"{' '.join(sorted(before))} / {' '.join(sorted(task.caller.scopes))}"

    @agent.skill(scope="spend", idempotent=False)
    async def spend(text: str, task: Task) -> str:
        """Spend."""
        return "spent"

    return agent


async def told_rights(came):
    """What the skill says that its caller may do, also in another process; and what the first entry says of it."""
    agent, store = office(), MemoryStore()
    async with started(agent, store) as engine:
        task_id = await engine.intake.create(came, "", agent.skills["rights"], message("?", "m"))
        await settled(engine, task_id)
    async with started(agent, store) as engine:
        async with engine.borrow(task_id) as live:
            recorded = live.meta.get("scopes")
            await engine.intake.answer(live, came, message("yes", "n", task_id=task_id))
        return (await settled(engine, task_id)).artifacts[-1].parts[0].text, recorded


async def test_what_a_token_started_has_no_more_than_the_token_gave():
    """However much its owner holds; in every process that goes on with it."""
    ada = replace(caller(office()), scopes=NARROW, narrowed=True)
    assert await told_rights(ada) == ("look / look", "look")


async def test_without_the_record_it_would_have_all(monkeypatch):
    """What the test above is worth: the owner's grants are asked, and nothing else."""
    monkeypatch.setattr(
        runner_module, "owner_of", lambda meta, scopes_of: Caller(meta["owner"], "", scopes_of(meta["owner"]))
    )
    ada = replace(caller(office()), scopes=NARROW, narrowed=True)
    assert await told_rights(ada) == ("look spend / look spend", "look")


async def test_who_came_with_all_is_asked_what_is_held_today():
    """Nothing is stored of it, as in logs from before."""
    assert await told_rights(caller(office())) == ("look spend / look spend", None)


async def test_what_is_withdrawn_since_is_no_part_of_what_a_token_gave():
    """Not more than is granted now, either."""
    agent = office()
    meta = {"owner": "ada", "subject": "ada", "scopes": "look spend"}
    assert rights.owner_of(meta, lambda _: NARROW).scopes == NARROW
    assert rights.owner_of(meta, lambda _: agent.scopes).scopes == agent.scopes
    assert rights.owner_of(meta | {"scopes": ""}, lambda _: agent.scopes).scopes == frozenset()
