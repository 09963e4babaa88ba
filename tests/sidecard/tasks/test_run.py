"""A run over its recorded steps: what it may still do when it is over, and how its branches are numbered."""

import asyncio
import contextlib

import pytest
from a2a.types import TaskState

from sidecard import Task
from sidecard.tasks import run as run_module
from sidecard.testing import FakeAgents, MemoryStore, caller, ended, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, idle, said, send, settled, until

S = TaskState
EVERY = ["step", "once", "ask", "sleep", "now", "random", "delegate", "artifact", "chunk", "progress"]


async def do(task, what, effect):
    """One of the things that a skill may ask of its task."""
    await {
        "step": lambda: task.step("late", effect),
        "once": lambda: task.once("late", effect),
        "ask": lambda: task.ask("Late?"),
        "sleep": lambda: task.sleep(60),
        "now": task.now,
        "random": task.random,
        "delegate": lambda: task.delegate("maker", "make", Order(what="hat")),
        "artifact": lambda: task.artifact("late", "late"),
        "chunk": lambda: task.chunk("late", "late"),
        "progress": lambda: task.progress("late"),
    }[what]()


@pytest.mark.parametrize("what", EVERY)
@pytest.mark.parametrize("wait", ["person", "agent"])
async def test_what_an_evicted_run_still_tries_is_refused(what, wait, monkeypatch):
    """An author's `finally`, and an `except` that catches too much, do no harm: no step, no effect, no output."""
    monkeypatch.setattr(run_module, "EVICT_SECONDS", 0.0)
    shop, store, tried = Shop(), MemoryStore(), []
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]}, hold=asyncio.Event())

    async def effect() -> None:
        shop.effects += 1

    @shop.agent.skill(scope="tidy", idempotent=False)
    async def tidy(order: Order, task: Task) -> Receipt:
        """Clean up, whatever happens."""
        try:
            if wait == "person":
                return Receipt(said=(await task.ask("Well?")).text)
            return await task.delegate("maker", "make", order, output=Receipt)
        except BaseException:
            try:
                await do(task, what, effect)
            except BaseException as refused:
                tried.append(refused)
                raise
            tried.append(None)
            raise

    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "tidy")
        await until(lambda: tried)
        await idle(engine) if wait == "person" else await asyncio.sleep(0)
        before = {key: value for key, value in store.data.items() if key.startswith("log:")}
        assert [type(refused) for refused in tried] == [asyncio.CancelledError]
        assert shop.effects == 0
        assert {key: value for key, value in store.data.items() if key.startswith("log:")} == before
        agents.hold.set()
        if wait == "person":
            await answer(engine, shop, task_id, "yes")
        assert said(await settled(engine, task_id)) == ("yes" if wait == "person" else "a hat")
        assert shop.effects == 0


async def test_a_skill_that_swallows_its_eviction_does_not_complete_its_task():
    """Nor does one that gives nothing back, so that nothing else of it is refused."""
    shop, store = Shop(), MemoryStore()

    @shop.agent.skill(scope="deaf", idempotent=False)
    async def deaf(order: Order, task: Task) -> None:
        """Hear nothing."""
        with contextlib.suppress(BaseException):
            await task.ask("Well?")
        shop.runs += 1

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "deaf")
        await settled(engine, task_id)
        await until(lambda: shop.runs)
        await idle(engine)
        async with engine.borrow(task_id) as live:
            assert live.folded.state == S.TASK_STATE_INPUT_REQUIRED
        await answer(engine, shop, task_id, "yes")
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_COMPLETED
    assert shop.runs == 2


async def test_a_run_that_was_cancelled_does_nothing_more(monkeypatch):
    """The same for a task that somebody cancels: its clean-up is cut off, and it ends CANCELED."""
    monkeypatch.setattr(run_module, "STOP_SECONDS", 0.01)
    shop, store, refused = Shop(), MemoryStore(), []

    async def effect() -> None:
        shop.effects += 1

    @shop.agent.skill(scope="tidy", idempotent=False)
    async def tidy(order: Order, task: Task) -> Receipt:
        """Refuse to stop."""
        try:
            shop.runs += 1
            await asyncio.Event().wait()
        finally:
            for what in EVERY:
                try:
                    await do(task, what, effect)
                except asyncio.CancelledError:
                    refused.append(what)
            await asyncio.Event().wait()

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "tidy")
        await until(lambda: shop.runs)
        async with engine.borrow(task_id) as live:
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
            assert live.folded.state == S.TASK_STATE_CANCELED
            assert live.folded.steps == {}
            assert not live.folded.task.artifacts
    assert refused == EVERY
    assert shop.effects == 0


async def test_branches_are_numbered_when_they_are_made():
    """So each finds its own steps again, whichever was first to do something, in whatever order they go on."""
    shop, store, order_of_runs = Shop(), MemoryStore(), []
    gates = [asyncio.Event() for _ in range(3)]

    async def one(task, number):
        if not order_of_runs:
            await gates[number].wait()
        value = (await task.random()).random()
        return number, value

    @shop.agent.skill(scope="many", idempotent=False)
    async def many(order: Order, task: Task) -> Receipt:
        """Work side by side, then ask."""
        async with task.group() as group:
            branches = [group.start(one(task, number)) for number in range(3)]
        order_of_runs.append([branch.result() for branch in branches])
        return Receipt(said=(await task.ask("Well?")).text)

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "many")
        for gate in reversed(gates):
            gate.set()
            await asyncio.sleep(0)
        await settled(engine, task_id)
        await idle(engine)
        async with engine.borrow(task_id) as live:
            assert {key for key, step in live.folded.steps.items() if step.kind == "random"} == {
                "0.0:0",
                "0.1:0",
                "0.2:0",
            }
        await answer(engine, shop, task_id, "yes")
        assert said(await settled(engine, task_id)) == "yes"
    first, second = order_of_runs
    assert first == second
    assert len({value for _, value in first}) == 3
