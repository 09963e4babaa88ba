"""What a task has delegated is canceled when it ends: at once, or as a delivery, over restarts, by whoever is there."""

import asyncio
import random

import pytest
from a2a.types import Message, TaskState

from sidecard import Task
from sidecard.errors import AgentUnavailable
from sidecard.tasks import dead as dead_module
from sidecard.tasks import outbox as outbox_module
from sidecard.tasks import replicas
from sidecard.tasks import watch as watch_module
from sidecard.tasks.cursor import Backoff, Cursor, child_key
from sidecard.tasks.dead import ask_for, dead_letters, taken
from sidecard.tasks.delivery import OWN_MOST_SECONDS, Delivery
from sidecard.tasks.loading import read_log
from sidecard.tasks.mail import Mail, hook_of_child, mark
from sidecard.tasks.retention import Keep, Retention
from sidecard.tasks.state import Orphan
from sidecard.tasks.watch import NotTaken, Refused
from sidecard.telemetry import WebhookMetrics
from sidecard.testing import FakeAgents, FakeTopic, FakeWebhooks, MemoryStore, caller, ended, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, idle, send, settled, ticks, until
from tests.sidecard.tasks.test_outbox import DOWN, FAST, URL, begin, delivered, told, webhook
from tests.sidecard.tasks.test_replicas import Cluster

S = TaskState
CHILD = ("maker", "t9")
IMPATIENT = Backoff(first=0.001, most=0.002, patience=0.01)
ENDS = [S.TASK_STATE_CANCELED, S.TASK_STATE_FAILED, S.TASK_STATE_REJECTED, S.TASK_STATE_COMPLETED]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Nobody waits long to be seen, alive or dead."""
    monkeypatch.setattr(dead_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(replicas, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(replicas, "DEAD_SECONDS", 0.3)


class Parents(Shop):
    """A shop whose tasks delegate, and end without waiting for the outcome."""

    def __init__(self) -> None:
        super().__init__()

        @self.agent.skill(scope="leave", idempotent=False)
        async def leave(order: Order, task: Task) -> Receipt:
            """Delegate beside, and end as is told."""
            task.group().start(task.delegate("maker", "make", order))
            await self.gate.wait()
            if order.what == S.Name(S.TASK_STATE_FAILED):
                raise RuntimeError("broken")
            if order.what == S.Name(S.TASK_STATE_REJECTED):
                task.reject("not today")
            return Receipt(said="enough")

        @self.agent.skill(scope="drop", idempotent=False)
        async def drop(order: Order, task: Task) -> Receipt:
            """Delegate beside something that fails, and go on all the same."""

            async def fail() -> None:
                await self.gate.wait()
                raise ValueError("no")

            try:
                async with task.group() as group:
                    group.start(task.delegate("maker", "make", order))
                    group.start(fail())
            except ValueError:
                self.runs += 1
            return Receipt(said=(await task.ask("And now?")).text)


def makers(down=True, **more) -> FakeAgents:
    """A maker that works for ever, and is down when it is told to stop."""
    agents = FakeAgents({"maker": [ended("t9")]}, hold=asyncio.Event(), **more)
    agents.down = {"maker"} if down else set()
    return agents


async def delegating(engine, shop, state, message_id="m1", **fields):
    """A task that will end in this state, once it has delegated."""
    data = {"what": S.Name(state)}
    if fields:
        task_id = await begin(engine, shop, "leave", message_id, data=data, **fields)
    else:
        task_id = await send(engine, shop, "leave", message_id, data=data)
    async with engine.borrow(task_id) as live:
        await until(lambda: live.folded.children)
    return task_id


async def end(engine, shop, task_id, state):
    """Let it end."""
    if state == S.TASK_STATE_CANCELED:
        async with engine.borrow(task_id) as live:
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
    shop.gate.set()
    assert (await settled(engine, task_id)).status.state == state


async def orphaned(engine, shop, state=S.TASK_STATE_CANCELED, **fields):
    """A task that has ended, and whose child's agent could not be told."""
    task_id = await delegating(engine, shop, state, **fields)
    await end(engine, shop, task_id, state)
    return task_id


async def orphans(store, task_id):
    """What is recorded of children that are yet to be canceled, with the records in the same entry."""
    _, entries = await read_log(store, task_id)
    return [(record, entry.records) for entry in entries for record in entry.records if record[0] == "orphan"]


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("state", ENDS, ids=S.Name)
async def test_a_child_whose_agent_is_down_is_canceled_when_that_is_back(state, atomic):
    """However its parent ends: this is stored with the end, stays listed until it is done, and is done once."""
    shop, store, agents = Parents(), MemoryStore(atomic=atomic), makers()
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await orphaned(engine, shop, state)
        assert engine.journal.slot.outbox.all == {task_id}
        ((record, beside),) = await orphans(store, task_id)
        assert record[2:] == [*CHILD]
        assert beside[-1][:3:2] == ["status", state]
        agents.down.clear()
        await delivered(engine)
        assert agents.canceled == [CHILD]
        assert not engine.journal.slot.outbox.all
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        await delivered(engine)
    assert agents.canceled == [CHILD]


@pytest.mark.parametrize("state", ENDS, ids=S.Name)
async def test_a_child_that_is_canceled_at_once_is_told_once_and_costs_no_record(state):
    """The usual case: when the parent has ended, it is canceled already."""
    shop, store, agents = Parents(), MemoryStore(), makers(down=False)
    async with started(shop.agent, store, agents) as engine:
        task_id = await orphaned(engine, shop, state)
        assert agents.canceled == [CHILD]
        assert not engine.journal.slot.outbox.all
        await idle(engine)
    assert agents.canceled == [CHILD]
    assert not await orphans(store, task_id)
    assert not [key for key in store.data if key.startswith("push:")]


@pytest.mark.parametrize("atomic", [True, False])
async def test_a_restart_goes_on_canceling(atomic):
    """Also one after another, and when the agent is back only while nobody is there to tell it."""
    shop, store, agents = Parents(), MemoryStore(atomic=atomic), makers()
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        await orphaned(engine, shop)
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        await until(lambda: len(engine.outbox))
        assert engine.journal.slot.outbox.all
    agents.down.clear()
    assert not agents.canceled
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        await delivered(engine)
    assert agents.canceled == [CHILD]


@pytest.mark.parametrize("atomic", [True, False])
async def test_who_takes_a_dead_replica_over_cancels_what_it_has_left(atomic):
    """Its list is the survivor's; what is done is not done again by the next one."""
    cluster, shop = Cluster(atomic=atomic), Parents()
    cluster.agents = agents = makers()
    async with cluster.stack:
        one = await cluster.replica(shop, backoff=FAST)
        task_id = await orphaned(one, shop)
        cluster.kill(one)
        agents.down.clear()
        two = await cluster.replica(shop, backoff=FAST)
        await until(lambda: agents.canceled)
        await until(lambda: task_id not in two.journal.slot.outbox.all)
        cluster.kill(two)
        three = await cluster.replica(shop, backoff=FAST)
        await delivered(three)
    assert agents.canceled == [CHILD]


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("state", ENDS, ids=S.Name)
async def test_a_crash_between_the_attempt_and_the_end_loses_no_cancel(state, down):
    """The task has not ended then: whoever takes it up tries again, and stores what is left with the end."""

    class Dies(FakeAgents):
        async def cancel(self, agent, task_id, tenant):
            crashed.data = dict(store.data)
            store.down = True
            await super().cancel(agent, task_id, tenant)

    shop, store, crashed = Parents(), MemoryStore(), MemoryStore()
    first = Dies({"maker": [ended("t9")]}, hold=asyncio.Event(), down={"maker"} if down else set())
    async with started(shop.agent, store, first, backoff=FAST) as engine:
        task_id = await delegating(engine, shop, state)
        if state == S.TASK_STATE_CANCELED:
            async with engine.borrow(task_id) as live:
                live.append(["cancel", "ada"])
        shop.gate.set()
        await until(lambda: store.down)
    second = FakeAgents({"maker": [ended("t9")]}, hold=asyncio.Event(), down={"maker"})
    async with started(shop.agent, crashed, second, backoff=FAST) as engine:
        assert (await settled(engine, task_id)).status.state == state
        second.down.clear()
        await delivered(engine)
    assert second.canceled == [CHILD]


async def test_an_agent_that_does_not_answer_holds_an_end_up_for_a_moment_only(monkeypatch):
    """What is not canceled by then is a delivery."""
    monkeypatch.setattr(watch_module, "CANCEL_CHILD_SECONDS", 0.2)

    class Hangs(FakeAgents):
        hangs, asked = True, 0

        async def cancel(self, agent, task_id, tenant):
            self.asked += 1
            if self.hangs:
                await asyncio.Event().wait()
            await super().cancel(agent, task_id, tenant)

    shop, store = Shop(), MemoryStore()
    agents = Hangs({"maker": [ended("t1")], "tester": [ended("t2")]}, hold=asyncio.Event())
    monkeypatch.setattr("sidecard.tasks.delivery.CANCEL_SECONDS", 0.05)
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await send(engine, shop, "both")
        async with engine.borrow(task_id) as live:
            await until(lambda: len(live.folded.children) == 2)
            canceling = asyncio.create_task(engine.cancel(live, caller(shop.agent)))
            await until(lambda: agents.asked == 2)
            assert not canceling.done()
            await asyncio.wait_for(canceling, 5)
        assert len(await orphans(store, task_id)) == 2
        agents.hangs = False
        await delivered(engine)
    assert sorted(agents.canceled) == [("maker", "t1"), ("tester", "t2")]


async def test_what_nobody_has_thought_of_delays_a_cancel_and_does_not_end_it(caplog):
    """It is in the log, at the end of the task and at each delivery."""

    class Odd(FakeAgents):
        odd = 3

        async def cancel(self, agent, task_id, tenant):
            self.odd -= 1
            if self.odd >= 0:
                raise RuntimeError("odd")
            await super().cancel(agent, task_id, tenant)

    shop, agents = Parents(), Odd({"maker": [ended("t9")]}, hold=asyncio.Event())
    async with started(shop.agent, MemoryStore(), agents, backoff=FAST) as engine:
        await orphaned(engine, shop)
        await delivered(engine)
    assert agents.canceled == [CHILD]
    assert caplog.text.count("RuntimeError: odd") == 3


async def test_all_children_are_told_side_by_side():
    """Neither waits until the other is."""

    class Both(FakeAgents):
        asked = 0

        async def cancel(self, agent, task_id, tenant):
            self.asked += 1
            await until(lambda: self.asked == 2)
            await super().cancel(agent, task_id, tenant)

    shop, store = Shop(), MemoryStore()
    agents = Both({"maker": [ended("t1")], "tester": [ended("t2")]}, hold=asyncio.Event())
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "both")
        async with engine.borrow(task_id) as live:
            await until(lambda: len(live.folded.children) == 2)
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
    assert not await orphans(store, task_id)


async def test_two_agents_may_have_tasks_of_the_same_id():
    """Each is canceled."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t1")], "tester": [ended("t1")]}, hold=asyncio.Event(), down={"maker"})
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await send(engine, shop, "both")
        async with engine.borrow(task_id) as live:
            await until(lambda: len(live.folded.children) == 2)
            await engine.cancel(live, caller(shop.agent))
        assert agents.canceled == [("tester", "t1")]
        agents.down.clear()
        await delivered(engine)
    assert agents.canceled == [("tester", "t1"), ("maker", "t1")]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("down", [True, False])
async def test_what_a_dropped_branch_has_delegated_is_canceled_at_the_latest_with_its_task(down, restart):
    """At once where it can be, and then not again; over a restart."""
    shop, store, agents = Parents(), MemoryStore(), makers(down=down)
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await send(engine, shop, "drop")
        async with engine.borrow(task_id) as live:
            await until(lambda: live.folded.children)
            shop.gate.set()
            await until(lambda: live.question and not live._pending and not engine._background)
            assert agents.canceled == ([] if down else [CHILD])
            if not restart:
                await answer(engine, shop, task_id, "well")
                await settled(engine, task_id)
                assert agents.canceled == ([] if down else [CHILD])
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        if restart:
            await answer(engine, shop, task_id, "well")
            await settled(engine, task_id)
        assert len(await orphans(store, task_id)) == down
        agents.down.clear()
        await delivered(engine)
    assert set(agents.canceled) == {CHILD}
    assert len(agents.canceled) == (2 if restart and not down else 1)


class Late(FakeAgents):
    """Agents that take a message only when they are told to."""

    def __init__(self, **more):
        super().__init__({"maker": [ended("t9")]}, hold=asyncio.Event(), **more)
        self.takes = asyncio.Event()
        self.called = False

    async def follow(self, *call, **known):
        self.called = True
        await self.takes.wait()
        return await super().follow(*call)


@pytest.mark.parametrize("skill", ["leave", "drop"])
async def test_a_call_that_is_under_way_is_canceled_once_it_is_taken(skill):
    """Where its branch is dropped, and where its task comes to its end without it."""
    shop, store, agents = Parents(), MemoryStore(), Late()
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await send(engine, shop, skill)
        await until(lambda: agents.called)
        shop.gate.set()
        async with engine.borrow(task_id) as live:
            if skill == "drop":
                await until(lambda: live.folded.question)
            else:
                await until(lambda: live.run is None or live.state != S.TASK_STATE_SUBMITTED)
            agents.takes.set()
            await until(lambda: agents.canceled == [CHILD])
            if skill == "leave":
                assert (await settled(engine, task_id)).status.state == S.TASK_STATE_COMPLETED


async def dropping(engine, shop, agents):
    """A task that has dropped a call which nobody has taken yet, and asks."""
    task_id = await send(engine, shop, "drop")
    await until(lambda: agents.called)
    shop.gate.set()
    async with engine.borrow(task_id) as live:
        await until(lambda: live.folded.question)
    return task_id


async def test_the_end_of_a_task_waits_a_moment_for_a_dropped_call_to_be_taken():
    """So that it is canceled by its id."""
    shop, store, agents = Parents(), MemoryStore(), Late()
    async with started(shop.agent, store, agents) as engine:
        task_id = await dropping(engine, shop, agents)
        async with engine.borrow(task_id) as live:
            canceling = asyncio.create_task(engine.cancel(live, caller(shop.agent)))
            await until(lambda: live.canceling)
            await ticks(20)
            agents.takes.set()
            await asyncio.wait_for(canceling, 5)
    assert (agents.canceled, agents.withdrawn) == ([CHILD], [])


async def test_a_call_that_comes_to_nothing_is_waited_for_no_longer():
    """Nobody was asked: there is nothing to cancel, and nothing is left waiting."""
    shop, store, agents = Parents(), MemoryStore(), Late()
    agents.answers["maker"] = [AgentUnavailable("maker does not take this")]
    async with started(shop.agent, store, agents) as engine:
        await dropping(engine, shop, agents)
        agents.takes.set()
        began = asyncio.get_running_loop().time()
        await idle(engine)
        assert asyncio.get_running_loop().time() - began < watch_module.CANCEL_CHILD_SECONDS / 2
    assert not agents.canceled


async def test_a_child_that_is_known_and_not_yet_stored_is_canceled(monkeypatch):
    """However slow the store is just then."""
    monkeypatch.setattr(watch_module, "CANCEL_CHILD_SECONDS", 0.05)
    shop, store, agents = Parents(), MemoryStore(), Late()
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "leave")
        await until(lambda: agents.called)
        store.down = True
        agents.takes.set()
        await until(lambda: agents.sent)
        shop.gate.set()
        async with engine.borrow(task_id) as live:
            await asyncio.sleep(0.2)  # for longer than it is waited for; the outcome does not depend on it
            assert not live.folded.children
            store.down = False
            assert (await settled(engine, task_id)).status.state == S.TASK_STATE_COMPLETED
    assert agents.canceled == [CHILD]


async def test_a_cancel_waits_for_no_broker_however_many_tasks_do(monkeypatch):
    """Those that wait for the topic alone wait on the list; what is to be canceled is not one of them."""
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 0)
    shop, agents, topic = Parents(), makers(), FakeTopic()
    topic.hold = asyncio.Event()
    async with started(shop.agent, MemoryStore(), agents, topic=topic, backoff=FAST) as engine:
        await orphaned(engine, shop)
        agents.down.clear()
        await until(lambda: agents.canceled == [CHILD])


async def test_what_is_delegated_while_others_are_canceled_is_canceled_too():
    """A branch beside the skill may go on until its end is appended."""
    shop, store = Shop(), MemoryStore()

    class Meanwhile(FakeAgents):
        async def cancel(self, agent, task_id, tenant):
            shop.gate.set()
            await until(lambda: len(self.sent) == 2)
            await super().cancel(agent, task_id, tenant)

    agents = Meanwhile({"maker": [ended("t1")], "tester": [ended("t2")]}, hold=asyncio.Event())

    @shop.agent.skill(scope="busy", idempotent=False)
    async def busy(order: Order, task: Task) -> Receipt:
        """Have a branch that delegates late."""
        group = task.group()

        async def late() -> None:
            await shop.gate.wait()
            await task.delegate("tester", "test", order)

        group.start(task.delegate("maker", "make", order))
        group.start(late())
        await until(lambda: agents.sent)
        return Receipt(said="enough")

    async with started(shop.agent, store, agents) as engine:
        await settled(engine, await send(engine, shop, "busy"))
    assert sorted(agents.canceled) == [("maker", "t1"), ("tester", "t2")]


@pytest.mark.parametrize("atomic", [True, False])
async def test_a_cancel_that_was_given_up_is_listed_and_made_after_all(atomic):
    """With what it is of, and why; when an operator asks for it."""
    shop, store, agents = Parents(), MemoryStore(atomic=atomic), makers()
    async with started(shop.agent, store, agents, backoff=IMPATIENT) as engine:
        task_id = await orphaned(engine, shop)
        await until(lambda: engine.journal.slot.outbox.all == {mark(task_id)})
        (letter,) = await dead_letters(store)
        assert (letter.task_id, letter.agent, letter.child) == (task_id, *CHILD)
        assert (letter.config_id, letter.url, letter.waiting, letter.problem) == ("", "", 1, "maker is down")
    async with started(shop.agent, store, agents, backoff=IMPATIENT) as engine:
        await delivered(engine)
        assert await dead_letters(store) == [letter]
        agents.down.clear()
        assert await ask_for(store, [letter])
        assert await taken(store, [letter], 5)
        await until(lambda: not engine.journal.slot.outbox.all)
        assert await dead_letters(store) == []
    assert agents.canceled == [CHILD]


class Stubborn(FakeAgents):
    """Has no way to cancel a task."""

    async def cancel(self, agent, task_id, tenant):
        raise Refused("maker does not cancel: no such method")


async def test_an_agent_that_refuses_for_good_is_asked_once_more_and_listed():
    """Asking on for days would tell an operator too late."""
    shop, store = Parents(), MemoryStore()
    agents = Stubborn({"maker": [ended("t9")]}, hold=asyncio.Event())
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await orphaned(engine, shop)
        await until(lambda: engine.journal.slot.outbox.all == {mark(task_id)})
        (letter,) = await dead_letters(store)
    assert (letter.attempts, letter.problem) == (1, "maker does not cancel: no such method")


@pytest.mark.parametrize("given_up", [True, False])
async def test_expiry_removes_what_is_kept_of_a_cancel(given_up):
    """Done or given up; while it is due the task does not expire."""
    shop, store, agents = Parents(), MemoryStore(), makers()
    async with started(shop.agent, store, agents, backoff=IMPATIENT if given_up else FAST) as engine:
        task_id = await orphaned(engine, shop)
        ((record, _),) = await orphans(store, task_id)
        now = engine._clock()
        retention = Retention(engine.journal, engine.slots, Keep(), lambda: now)
        if not given_up:
            now += 31 * 86_400_000
            while await retention.step():
                pass
            assert not store.data[f"log:{task_id}:1"].startswith(b"expired:")
            agents.down.clear()
        await until(lambda: task_id not in engine.journal.slot.outbox.all)
        assert child_key(task_id, record[1]) in store.data
        for _ in range(3):
            now += 31 * 86_400_000
            while await retention.step():
                pass
    assert not [key for key in store.data if task_id in key]


@pytest.mark.parametrize("slow", ["webhook", "topic", "child"])
async def test_receivers_of_one_task_wait_for_each_other_in_no_way(slow):
    """A child's agent that is down holds up no event; a webhook or topic that hangs holds up no cancel."""
    shop, store, agents = Parents(), MemoryStore(), makers()
    webhooks, topic = FakeWebhooks(), FakeTopic()
    async with started(shop.agent, store, agents, webhooks=webhooks, topic=topic, backoff=FAST) as engine:
        if slow == "webhook":
            webhooks.hold[URL] = asyncio.Event()
        if slow == "topic":
            topic.hold = asyncio.Event()
        task_id = await orphaned(engine, shop, hook=webhook())
        if slow != "child":
            agents.down.clear()
            await until(lambda: agents.canceled == [CHILD])
        if slow != "webhook":
            await until(lambda: told(webhooks)[-1:] == ["CANCELED"])
        if slow != "topic":
            await until(lambda: len(topic.published) == 3)
        assert task_id in engine.journal.slot.outbox.all
        agents.down.clear()
        webhooks.hold[URL].set() if slow == "webhook" else None
        topic.hold.set() if slow == "topic" else None
        await delivered(engine)
    assert agents.canceled == [CHILD]
    assert told(webhooks)[-1] == "CANCELED"


async def test_one_agent_that_is_slow_holds_up_no_cancel_to_another():
    """Each has its own places."""
    gate = asyncio.Event()

    class Slow(FakeAgents):
        async def cancel(self, agent, task_id, tenant):
            if agent == "maker":
                await gate.wait()
            await super().cancel(agent, task_id, tenant)

    agents = Slow()
    delivery = Delivery(None, None, agents, WebhookMetrics("shop"), clock=lambda: 1_000)
    mail = Mail("t", {"tenant": "", "owner": "ada", "trace": ""})

    async def cancel(agent, number):
        hook = hook_of_child("t", f"0:{number}", Orphan(agent, f"t{number}", (1, number)))
        async with delivery.turn(mail, hook):
            assert await delivery.attempt(mail, hook, Cursor.of(hook.webhook, None), hook.orphan, 1_000)

    slow = [asyncio.create_task(cancel("maker", n)) for n in range(100)]
    await asyncio.wait_for(cancel("tester", 100), 5)
    assert agents.canceled == [("tester", "t100")]
    gate.set()
    await asyncio.gather(*slow)


async def test_a_mark_stays_while_it_is_not_known_whom_it_is_for():
    """A webhook that was given up is still listed when nobody may tell it, and a cancel is delivered meanwhile."""
    shop, store, agents, webhooks = Parents(), MemoryStore(), makers(), FakeWebhooks()
    webhooks.answers[URL] = [DOWN] * 10_000
    async with started(shop.agent, store, agents, webhooks=webhooks, backoff=IMPATIENT) as engine:
        task_id = await delegating(engine, shop, S.TASK_STATE_CANCELED, hook=webhook())
        await until(lambda: mark(task_id) in engine.journal.slot.outbox.all)
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        await until(lambda: len(agents.sent) == 2)
        await end(engine, shop, task_id, S.TASK_STATE_CANCELED)
        agents.down.clear()
        await until(lambda: agents.canceled == [CHILD])
        await until(lambda: not engine.outbox)
        assert mark(task_id) in engine.journal.slot.outbox.all
    assert [letter.config_id for letter in await dead_letters(store)] == ["w"]


def test_another_agent_is_tried_again_soon():
    """What is to be canceled works on meanwhile: an hour would be too long."""
    backoff = Backoff(chance=random.Random(1))
    delivery = Delivery(None, None, FakeAgents(), WebhookMetrics("shop"), clock=lambda: 1_000, backoff=backoff)
    assert max(delivery._own_backoff.delay(attempts) for attempts in range(1, 40)) <= OWN_MOST_SECONDS


# -- calls of which nothing was heard --------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    """Nobody waits long to hear of a call."""
    monkeypatch.setattr(watch_module, "CANCEL_CHILD_SECONDS", 0.05)


async def calling(engine, shop, agents, skill="leave", state=S.TASK_STATE_CANCELED):
    """A task that has called, and hears nothing; with the id of the message."""
    task_id = await send(engine, shop, skill, data={"what": S.Name(state)})
    await until(lambda: agents.called)
    async with engine.borrow(task_id) as live:
        ((_, sent),) = live.folded.unheard.values()
    return task_id, Message.FromString(sent).message_id


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("state", ENDS, ids=S.Name)
async def test_a_call_of_which_nothing_was_heard_is_withdrawn(state, down, hasty):
    """The message may have been taken all the same: at once, or when the other agent is back; once."""
    shop, store, agents = Parents(), MemoryStore(), Late(down={"maker"} if down else set())
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id, message_id = await calling(engine, shop, agents, state=state)
        await end(engine, shop, task_id, state)
        assert [record[2:] for record, _ in await orphans(store, task_id)] == [["maker", ""]] * down
        assert agents.withdrawn == [("maker", message_id)] * (not down)
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        agents.down.clear()
        await delivered(engine)
    assert agents.withdrawn == [("maker", message_id)]
    assert not agents.canceled


async def test_who_takes_a_task_up_that_is_to_be_canceled_withdraws_what_it_finds_begun(hasty):
    """Nobody follows the call any more: the process that did died before it heard of it."""

    class Dies(Late):
        async def withdraw(self, *call):
            crashed.data = dict(store.data)
            store.down = True

    shop, store, crashed, agents = Parents(), MemoryStore(), MemoryStore(), FakeAgents()
    first = Dies()
    async with started(shop.agent, store, first) as engine:
        task_id, message_id = await calling(engine, shop, first)
        async with engine.borrow(task_id) as live:
            live.append(["cancel", "ada"])
        await until(lambda: store.down)
    async with started(shop.agent, crashed, agents) as engine:
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_CANCELED
    assert agents.withdrawn == [("maker", message_id)]
    assert not agents.sent


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("restart", [True, False])
async def test_a_dropped_call_of_which_nothing_was_heard_is_withdrawn(down, restart, hasty):
    """At once, or with its task, over a restart; what is withdrawn is not withdrawn again by the same process."""
    shop, store, agents = Parents(), MemoryStore(), Late(down={"maker"} if down else set())
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id, message_id = await calling(engine, shop, agents, "drop")
        shop.gate.set()
        async with engine.borrow(task_id) as live:
            await until(lambda: live.question and not live._pending and not engine._background)
            assert agents.withdrawn == [("maker", message_id)] * (not down)
            if not restart:
                await answer(engine, shop, task_id, "well")
                await settled(engine, task_id)
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        if restart:
            await answer(engine, shop, task_id, "well")
            await settled(engine, task_id)
        agents.down.clear()
        await delivered(engine)
    assert agents.withdrawn == [("maker", message_id)] * (2 if restart and not down else 1)


async def test_a_withdrawal_that_was_given_up_is_listed_by_its_message(hasty):
    """And made after all."""
    shop, store, agents = Parents(), MemoryStore(), Late(down={"maker"})
    async with started(shop.agent, store, agents, backoff=IMPATIENT) as engine:
        task_id, message_id = await calling(engine, shop, agents)
        await end(engine, shop, task_id, S.TASK_STATE_CANCELED)
        await until(lambda: engine.journal.slot.outbox.all == {mark(task_id)})
        (letter,) = await dead_letters(store)
        assert (letter.agent, letter.child, letter.waiting) == ("maker", message_id, 1)
        agents.down.clear()
        assert await ask_for(store, [letter])
        await until(lambda: agents.withdrawn == [("maker", message_id)])


@pytest.mark.parametrize("certain", [True, False])
async def test_a_call_that_was_given_up_is_withdrawn_if_anything_may_come_of_it(certain):
    """The other agent may have taken it and died: its task must not work on when that is back."""
    gave_up = (NotTaken if certain else AgentUnavailable)("maker can't be reached")
    shop, store, agents = Parents(), MemoryStore(), FakeAgents({"maker": [gave_up]})
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await send(engine, shop, "through")
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_FAILED
        await idle(engine)
    ((_, sent),) = agents.sent
    assert agents.withdrawn == [("maker", sent.message_id)] * (not certain)


class Unreadable(FakeAgents):
    """Says that it has taken a message, and then something that is no A2A."""

    async def follow(self, agent, message, tenant, accepted, *, known="", **_):
        accepted("t9")
        raise AgentUnavailable("what it answers is not A2A 1.0")


async def test_a_child_that_is_stored_together_with_the_end_of_its_call_is_canceled():
    """The parent goes on with the outcome at once, before that is stored: its end waits for what it has delegated."""
    shop, store, agents = Parents(), MemoryStore(), Unreadable()
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id = await send(engine, shop, "through")
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_FAILED
        await idle(engine)
    assert agents.canceled == [CHILD]


async def test_an_answer_of_which_nothing_was_heard_is_no_task_of_its_own(hasty):
    """The task that it was for is known, and canceled."""
    shop, store = Shop(), MemoryStore()

    class Deaf(FakeAgents):
        async def follow(self, agent, message, tenant, accepted, *, known="", **_):
            if message.task_id:
                self.sent.append((agent, message))
                await asyncio.Event().wait()
            return await super().follow(agent, message, tenant, accepted)

    agents = Deaf({"maker": [ended("t9", state=S.TASK_STATE_INPUT_REQUIRED, says="Which?")]})
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "through")
        await settled(engine, task_id)
        await answer(engine, shop, task_id, "red")
        await until(lambda: len(agents.sent) == 2)
        async with engine.borrow(task_id) as live:
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
    assert (agents.canceled, agents.withdrawn) == ([CHILD], [])


@pytest.mark.parametrize("down", [True, False])
async def test_a_call_that_is_heard_of_while_it_is_withdrawn_is_canceled_all_the_same(down, hasty):
    """By its message, or by its id when that failed."""

    class Meets(Late):
        async def withdraw(self, *call):
            live.append(["child", key, *CHILD])
            if down:
                raise AgentUnavailable("maker is down")
            await super().withdraw(*call)

    shop, store, agents = Parents(), MemoryStore(), Meets()
    agents.down = {"maker"} if down else set()
    async with started(shop.agent, store, agents, backoff=FAST) as engine:
        task_id, message_id = await calling(engine, shop, agents)
        async with engine.borrow(task_id) as live:
            (key,) = live.folded.unheard
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
            assert live.folded.state == S.TASK_STATE_CANCELED
        agents.down.clear()
        await delivered(engine)
    assert agents.canceled == [CHILD] * down
    assert agents.withdrawn == [("maker", message_id)] * (not down)
