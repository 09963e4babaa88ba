"""What meets what: disconnects, answers, cancels, evictions and ends, in every order that the event loop allows."""

import asyncio
import contextlib

import pytest
from a2a.types import TaskState

from sidecard import Task
from sidecard.errors import SidecardError, StoreUnavailable, TaskConflict
from sidecard.tasks import live as live_module
from sidecard.tasks import run as run_module
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.identity import TaskIds
from sidecard.tasks.live import TaskEnded
from sidecard.tasks.loading import load
from sidecard.tasks.states import INTERRUPTED, TERMINAL
from sidecard.testing import KEY, FakeAgents, MemoryStore, caller, ended, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, idle, said, send, settled, ticks, until
from tests.sidecard.tasks.test_faults import KINDS, Job, records

S = TaskState
RESTING = TERMINAL | INTERRUPTED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_goes_away_stops_nothing(kind):
    """Whenever its request is cancelled, what was stored goes on by itself, and nothing stays in memory."""
    for count in range(40):
        job, store = Job(kind), MemoryStore()
        job.data = store.data
        async with started(job.shop.agent, store, job.agents, webhooks=job.webhooks) as engine:
            driving = asyncio.create_task(job.drive(engine))
            await ticks(count)
            driving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await driving
            job.shop.gate.set()
            await idle(engine)
            task_id = TaskIds(job.shop.agent.name, KEY).of("", "ada", "m1")
            folded = await load(store, task_id)
            assert folded is None or folded.state in RESTING, count
            if kind != "cancel":
                await asyncio.wait_for(job.drive(engine), 5)
                await idle(engine)
                await until(lambda: not engine.outbox and not engine.journal.slot.outbox.all)
                await job.check()


@pytest.mark.parametrize("count", range(12))
async def test_an_answer_meets_the_eviction_of_the_run_that_asked(count):
    """However soon after the question it comes, it continues the task."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await until(lambda: task_id in engine._lives and engine._lives.values()[0].folded.question)
        await ticks(count)
        await answer(engine, shop, task_id, "red")
        assert said(await settled(engine, task_id)) == "r by ada"
        await idle(engine)


@pytest.mark.parametrize("skill", ["through", "both"])
@pytest.mark.parametrize("count", range(8))
async def test_a_result_meets_the_eviction_of_the_run_that_waits_for_it(skill, count, monkeypatch):
    """A delegated task's end continues its parent, evicted or not."""
    monkeypatch.setattr(run_module, "EVICT_SECONDS", 0.0)
    shop, store = Shop(), MemoryStore()
    answers = {"maker": [ended("t1", Receipt(said="made"))], "tester": [ended("t2", Receipt(said="tested"))]}
    agents = FakeAgents(answers, hold=asyncio.Event())
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, skill)
        await until(lambda: agents.sent)
        await ticks(count)
        agents.hold.set()
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_COMPLETED
        await idle(engine)


@pytest.mark.parametrize("evict", [0.0, 30.0])
async def test_a_cancel_reaches_the_children_of_an_evicted_run_too(evict, monkeypatch):
    """CANCELED, once the delegated tasks are told, also when nothing of the run is in memory."""
    monkeypatch.setattr(run_module, "EVICT_SECONDS", evict)
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t1")], "tester": [ended("t2")]}, hold=asyncio.Event())
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "both")
        await until(lambda: len(agents.sent) == 2)
        await asyncio.sleep(0.005)
        async with engine.borrow(task_id) as live:
            assert bool(live.run) == bool(evict)
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
        assert sorted(agents.canceled) == [("maker", "t1"), ("tester", "t2")]
        await idle(engine)


@pytest.mark.parametrize("count", range(0, 24, 2))
async def test_a_cancel_meets_an_answer(count):
    """One of them decides; there is one terminal state, and who lost is told."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
        answering = asyncio.create_task(answer(engine, shop, task_id, "red"))
        await ticks(count)
        async with engine.borrow(task_id) as live:
            try:
                await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
                expected = S.TASK_STATE_CANCELED
            except TaskEnded:
                expected = S.TASK_STATE_COMPLETED
        with contextlib.suppress(TaskEnded):
            await answering
        assert (await settled(engine, task_id)).status.state == expected
        states = [record[2] for record in records(store.data, task_id) if record[0] == "status"]
        assert len(TERMINAL & set(states)) == 1
        assert states[-1] == expected
        await idle(engine)


async def test_of_two_answers_the_first_counts_and_both_are_kept():
    """They race; the second is a message like any other."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
        await asyncio.gather(
            answer(engine, shop, task_id, "red", "a1"),
            answer(engine, shop, task_id, "green", "a2"),
            engine_cancelled(engine, task_id),
        )
        task = await settled(engine, task_id)
        assert said(task) == "r by ada"
        assert [m.parts[0].text for m in task.history][-2:] == ["red", "green"]


async def engine_cancelled(engine, task_id) -> None:
    """A reader that goes away at once."""
    async with engine.borrow(task_id):
        await asyncio.sleep(0)


async def test_a_message_to_a_working_task_changes_nothing_but_its_history():
    """It is kept, deduplicated, and starts no second run."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        await until(lambda: shop.runs)
        await answer(engine, shop, task_id, "hurry", "a1")
        await answer(engine, shop, task_id, "hurry", "a1")
        shop.gate.set()
        task = await settled(engine, task_id)
        assert [m.message_id for m in task.history] == ["m1", "a1"]
        assert shop.runs == 1


def asker(shop: Shop) -> None:
    @shop.agent.skill(scope="ask2", idempotent=False)
    async def ask_twice(order: Order, task: Task) -> Receipt:
        """Ask in two branches."""
        async with task.group() as group:
            one = group.start(task.ask("One?"))
            two = group.start(task.ask("Two?"))
            await task.progress("asked")
        return Receipt(said=f"{one.result().text}{two.result().text}")

    @shop.agent.skill(scope="tries", idempotent=False)
    async def try_hard(order: Order, task: Task) -> Receipt:
        """Ask and delegate side by side with something that fails, and go on all the same."""

        async def fail() -> None:
            await task.sleep(0.01)
            raise ValueError("no")

        try:
            async with task.group() as group:
                group.start(task.ask("Never answered?"))
                group.start(task.delegate("maker", "make", order))
                group.start(fail())
        except ValueError:
            shop.runs += 1
        return Receipt(said=(await task.ask("And now?")).text)


@pytest.mark.parametrize("restart", [False, True])
async def test_two_branches_ask_one_after_the_other(restart):
    """One question is open at a time; each branch gets its own answer, whichever process it comes to."""
    shop, store = Shop(), MemoryStore()
    asker(shop)
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "ask_twice")
        first = await settled(engine, task_id)
        if not restart:
            await answer(engine, shop, task_id, "1", "a1")
            await settled(engine, task_id)
        await idle(engine)
    async with started(shop.agent, store) as engine:
        if restart:
            await answer(engine, shop, task_id, "1", "a1")
        second = await settled(engine, task_id)
        assert [t.status.message.parts[0].text for t in (first, second)] == ["One?", "Two?"]
        await answer(engine, shop, task_id, "2", "a2")
        assert said(await settled(engine, task_id)) == "12"
        await idle(engine)


@pytest.mark.parametrize("restart", [False, True])
async def test_a_branch_that_fails_withdraws_its_siblings_question_and_child(restart):
    """What nobody waits for any more is cancelled, in this run and, in the same way, in every later one."""
    shop, store = Shop(), MemoryStore()
    asker(shop)
    agents = FakeAgents({"maker": [ended("t1")] * 2}, hold=asyncio.Event())
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "try_hard")
        async with engine.borrow(task_id) as live:
            await until(lambda: live.question and live.question.spec["prompt"] == "And now?" and not live._pending)
            await until(lambda: agents.canceled == [("maker", "t1")])
        if not restart:
            await answer(engine, shop, task_id, "well")
            assert said(await settled(engine, task_id)) == "well"
        await idle(engine)
    async with started(shop.agent, store, agents) as engine:
        if restart:
            await answer(engine, shop, task_id, "well")
        assert said(await settled(engine, task_id)) == "well"
        await idle(engine)
    assert len(agents.sent) == 1


async def test_a_cancel_waits_for_the_effect_under_way_and_records_it():
    """The task ends CANCELED, and its log says what the effect returned."""
    shop, store = Shop(), MemoryStore()

    @shop.agent.skill(scope="pay", idempotent=False)
    async def pay_slowly(order: Order, task: Task) -> Receipt:
        """Have an effect that takes its time."""

        async def effect() -> str:
            shop.effects += 1
            await shop.gate.wait()
            return "paid"

        return Receipt(said=await task.once("pay", effect))

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "pay_slowly")
        await until(lambda: shop.effects)
        async with engine.borrow(task_id) as live:
            canceling = asyncio.create_task(engine.cancel(live, caller(shop.agent)))
            await asyncio.sleep(0.01)
            assert not canceling.done()
            shop.gate.set()
            await asyncio.wait_for(canceling, 5)
            assert live.folded.state == S.TASK_STATE_CANCELED
            assert live.folded.steps["0:0"].value == b'"paid"'
        await idle(engine)


async def test_a_stop_lets_effects_under_way_be_recorded():
    """A planned restart makes no outcome unknown."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:

        @shop.agent.skill(scope="pay", idempotent=False)
        async def pay_slowly(order: Order, task: Task) -> Receipt:
            """Have an effect that takes its time."""

            async def effect() -> str:
                shop.effects += 1
                await asyncio.sleep(0.02)
                return "paid"

            return Receipt(said=await task.once("pay", effect))

        task_id = await send(engine, shop, "pay_slowly")
        await until(lambda: shop.effects)
    async with started(shop.agent, store) as engine:
        assert said(await settled(engine, task_id)) == "paid"
    assert shop.effects == 1


async def test_requests_that_wait_when_the_agent_stops_are_told_so():
    """Nobody hangs: settled, follow, create and answer end, and nothing new is accepted."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        waiting = asyncio.create_task(settled(engine, task_id))
        async with engine.borrow(task_id) as live:
            following = asyncio.create_task(anext_all(live))
            await asyncio.sleep(0)
            store.down = True
            creating = asyncio.create_task(send(engine, shop, "buy", "m2"))
            await ticks(3)
            await engine.stop()
    async with asyncio.timeout(5):
        for task in (waiting, creating):
            with pytest.raises(StoreUnavailable):
                await task
        assert len(await following) == 1
        with pytest.raises(StoreUnavailable):
            await send(engine, shop, "buy", "m3")


async def anext_all(live):
    return [event async for event in live.follow()]


async def test_a_store_that_is_down_for_long_makes_no_outcome_unknown(monkeypatch):
    """Requests give up; the run waits with its effect's result, and ends well when the store is back."""
    monkeypatch.setattr(live_module, "ACKNOWLEDGE_SECONDS", 0.02)
    shop, store = Shop(), MemoryStore()

    @shop.agent.skill(scope="pay", idempotent=False)
    async def pay_in_the_dark(order: Order, task: Task) -> Receipt:
        """The store goes away during the effect."""

        async def effect() -> str:
            shop.effects += 1
            store.down = True
            return "paid"

        return Receipt(said=await task.once("pay", effect))

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "pay_in_the_dark")
        await until(lambda: shop.effects)
        async with engine.borrow(task_id) as live:
            with pytest.raises(StoreUnavailable):
                await answer(engine, shop, task_id, "well?")
            await asyncio.sleep(0.05)
            store.down = False
            await asyncio.wait_for(live.settled(), 5)
            assert said(live.folded.public()) == "paid"
    assert shop.effects == 1


async def test_a_predecessors_late_write_is_folded_in():
    """A write that was under way when its process died lands after the successor has read the log."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
    async with started(shop.agent, store) as engine, engine.borrow(task_id) as live:
        late = Entry(live.folded.nonce, live.folded.epoch, live.folded.at + 1, [["push", "late", b""]])
        store.data[log_key(task_id, live.folded.n + 1)] = late.pack()
        await answer(engine, shop, task_id, "red")
        assert said(await settled(engine, task_id)) == "r by ada"
        assert "late" in live.folded.push


async def test_a_task_that_another_replica_runs_is_left_alone():
    """Its entry with a higher epoch ends this run without a word; reading shows what the other one writes."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        await until(lambda: shop.runs)
        async with engine.borrow(task_id) as live:
            await live.stored()
            folded = live.folded
            other = Entry(
                folded.nonce, folded.epoch + 1, folded.at + 1, [["lease", "other", "died"], ["cancel", "bob"]]
            )
            store.data[log_key(task_id, folded.n + 1)] = other.pack()
            with pytest.raises(TaskConflict):
                await answer(engine, shop, task_id, "hurry")
            assert live.lost
            assert live.run is None
        async with engine.borrow(task_id) as live:
            assert live.folded.owner_replica == "other"
            assert live.folded.state == S.TASK_STATE_WORKING


async def test_one_broken_log_stops_its_task_and_no_other(caplog):
    """The others are taken up; the broken one is refused, loudly."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        bad, good = await send(engine, shop, "slow", "m1"), await send(engine, shop, "slow", "m2")
        await until(lambda: shop.runs == 2)
        await asyncio.sleep(0.01)
    store.data[log_key(bad, 1)] = Entry(b"what?", 1, 1, []).pack()
    shop.gate.set()
    async with started(shop.agent, store) as engine:
        assert said(await settled(engine, good)) == "at last"
        with pytest.raises(SidecardError, match="does not follow"):
            await settled(engine, bad)
        await until(lambda: f"task {bad} can't be taken over" in caplog.text)


async def test_whoever_waits_for_a_task_that_cannot_go_on_learns_why():
    """A changed skill parks its task; SendMessage does not hang on it."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
    changed = Shop()
    del changed.agent.skills["choose"]
    async with started(changed.agent, store) as engine:
        async with engine.borrow(task_id) as live:
            await answer(engine, changed, task_id, "red")
            with pytest.raises(TaskConflict, match="stopped where it is"):
                await asyncio.wait_for(live.settled(), 5)
        await idle(engine)
        assert sorted(engine.journal.slot.todo.all) == [task_id]
        await answer(engine, changed, task_id, "red")
        with pytest.raises(TaskConflict, match="stopped where it is"):  # whoever sends it again learns the same
            await settled(engine, task_id)
        changed.agent.skills["choose"] = shop.skill("choose")
        await answer(engine, changed, task_id, "red")
        assert said(await settled(engine, task_id)) == "r by ada"
