"""Replays: what they return, where they stop, what they find, and that they do nothing."""

import asyncio

import pytest
from a2a.types import TaskState

from sidecard import Task
from sidecard.errors import SidecardError, StoreUnavailable
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.loading import read_log
from sidecard.tasks.replay import replay
from sidecard.testing import FakeAgents, MemoryStore, caller, ended, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, send, settled, until

S = TaskState


async def replayed(shop: Shop, store: MemoryStore, task_id: str, seconds: float = 5):
    """The replay of a task, as it is stored now, by a shop's skills; the store must be the same afterwards."""
    frozen = MemoryStore()
    frozen.data = dict(store.data)
    folded, entries = await read_log(frozen, task_id)
    outcome = await replay(shop.agent, frozen, folded, entries, lambda _: shop.agent.scopes, seconds=seconds)
    assert frozen.writes == 0
    return outcome


async def made(shop: Shop, store: MemoryStore, skill: str, agents: FakeAgents | None = None) -> str:
    """A task of this skill, at rest in the store."""
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, skill)
        await settled(engine, task_id)
        return task_id


async def left(shop: Shop, store: MemoryStore, skill: str, begun: asyncio.Event) -> str:
    """A task of this skill as a process leaves it that is killed once `begun`."""
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, skill)
        await asyncio.wait_for(begun.wait(), 5)
        engine._stopping = True
    return task_id


def forget(store: MemoryStore, task_id: str, kind: str) -> None:
    """Take all records of a kind out of a task's log, its chain unbroken."""
    n = 1
    while (key := log_key(task_id, n)) in store.data:
        entry = Entry.unpack(store.data[key])
        entry.records[:] = [record for record in entry.records if record[0] != kind]
        store.data[key] = entry.pack()
        n += 1


@pytest.mark.parametrize("skill", ["look", "buy", "order", "nap", "talk", "tell", "broken", "picky"])
async def test_a_task_that_ended_by_itself_agrees(skill):
    """Its steps return what they returned, its outputs and its end come out the same, and no effect happens again."""
    store = MemoryStore()
    first, again = Shop(), Shop()
    task_id = await made(first, store, skill)
    outcome = await replayed(again, store, task_id)
    folded, entries = await read_log(store, task_id)
    assert outcome.disagreements == []
    assert outcome.stops == []
    assert outcome.state == S.Name(folded.state).removeprefix("TASK_STATE_")
    assert outcome.steps == len(folded.steps)
    assert outcome.outputs == sum(record[0] == "artifact" for entry in entries for record in entry.records)
    assert again.effects == 0
    assert again.keys == []


async def test_delegations_and_answers_are_replayed():
    """Other agents and people are not asked again."""
    shop, store = Shop(), MemoryStore()
    both = FakeAgents({"maker": [ended("c1", Receipt(said="hat"))], "tester": [ended("c2", Receipt(said="good"))]})
    task_id = await made(shop, store, "both", both)
    assert (await replayed(shop, store, task_id)).agrees
    assert len(both.sent) == 2
    async with started(shop.agent, store) as engine:
        asked = await send(engine, shop, "choose", "m2")
        await settled(engine, asked)
        waiting = await replayed(shop, store, asked)
        assert waiting.agrees
        assert [(stop.kind, stop.begun) for stop in waiting.stops] == [("ask", True)]
        assert waiting.outputs == 1
        await answer(engine, shop, asked, "green")
        await settled(engine, asked)
    outcome = await replayed(shop, store, asked)
    assert outcome.agrees
    assert outcome.state == "COMPLETED"


async def test_a_long_log_is_replayed_from_its_first_entry():
    """Snapshots change nothing: outputs from before one are compared too."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "talk", data={"what": "word", "count": 2000})
        await settled(engine, task_id)
    outcome = await replayed(shop, store, task_id)
    assert outcome.agrees
    assert outcome.outputs == 2001


async def test_a_step_that_is_not_recorded_stops_the_replay_and_is_named():
    """A process that died within a step leaves nothing of it; the step is not done, and what came before agrees."""
    shop, store = Shop(), MemoryStore()
    begun, calls = asyncio.Event(), []

    @shop.agent.skill(scope="look", idempotent=False)
    async def hard(order: Order, task: Task) -> Receipt:
        """Work for long."""

        async def work() -> str:
            calls.append(1)
            begun.set()
            await asyncio.Event().wait()
            return ""

        await task.now()
        await task.progress("begins")
        return Receipt(said=await task.step("work", work))

    task_id = await left(shop, store, "hard", begun)
    outcome = await replayed(shop, store, task_id)
    assert outcome.agrees
    assert [str(stop) for stop in outcome.stops] == ["step 0:1, step 'work'"]
    assert not outcome.stops[0].begun
    assert calls == [1]


@pytest.mark.parametrize("repeatable", [False, True])
async def test_an_effect_under_way_is_not_repeated(repeatable):
    """A replay stops at an effect that was begun, also at one that the engine would repeat under its key."""
    shop, store = Shop(), MemoryStore()
    begun, calls = asyncio.Event(), []

    @shop.agent.skill(scope="look", idempotent=False)
    async def pay(order: Order, task: Task) -> Receipt:
        """Pay."""

        async def effect(*_: str) -> str:
            calls.append(1)
            begun.set()
            raise StoreUnavailable("its outcome is not known")

        return Receipt(said=await task.once("pay", effect, repeatable=repeatable))

    task_id = await left(shop, store, "pay", begun)
    calls.clear()
    outcome = await replayed(shop, store, task_id)
    assert outcome.agrees
    assert [(stop.key, stop.begun) for stop in outcome.stops] == [("0:0", True)]
    assert calls == []


async def test_a_task_that_failed_with_an_unknown_outcome_agrees():
    """The skill is told again that the outcome is not known, and ends as it did."""
    shop, store = Shop(), MemoryStore()
    begun = asyncio.Event()

    @shop.agent.skill(scope="look", idempotent=False)
    async def pay(order: Order, task: Task) -> Receipt:
        """Pay."""

        async def effect() -> str:
            begun.set()
            raise StoreUnavailable("its outcome is not known")

        return Receipt(said=await task.once("pay", effect))

    task_id = await left(shop, store, "pay", begun)
    async with started(shop.agent, store) as engine:
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_FAILED
    outcome = await replayed(shop, store, task_id)
    assert outcome.disagreements == []
    assert outcome.state == "FAILED"


async def test_a_canceled_task_agrees_as_far_as_it_came():
    """Whoever cancelled it ended it, not the skill."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
        async with engine.borrow(task_id) as live:
            await engine.cancel(live, caller(shop.agent))
    outcome = await replayed(shop, store, task_id)
    assert outcome.disagreements == []
    assert outcome.state == ""


async def test_a_group_that_failed_agrees():
    """Its other branch was cancelled, wherever that was just then."""
    shop, store = Shop(), MemoryStore()

    @shop.agent.skill(scope="look", idempotent=False)
    async def torn(order: Order, task: Task) -> Receipt:
        """Fail in one branch while the other one works and talks."""

        async def fails() -> None:
            await task.step("one", asyncio.sleep, 0)
            await task.sleep(0.02)
            raise SidecardError("one branch failed")

        async def talks() -> None:
            for number in range(3):
                await task.progress(f"talks {number}")
                await task.step("talk", asyncio.sleep, 0)
            await task.sleep(60)

        async with task.group() as group:
            group.start(talks())
            group.start(fails())
        raise AssertionError

    task_id = await made(shop, store, "torn")
    outcome = await replayed(shop, store, task_id)
    assert outcome.disagreements == []
    assert outcome.state == "FAILED"


async def test_a_skill_that_takes_another_way_disagrees():
    """Another step than the recorded one is reported, with both."""
    store = MemoryStore()
    task_id = await made(Shop(), store, "buy")
    changed = Shop()
    del changed.agent.skills["buy"]

    @changed.agent.skill(scope="buy", idempotent=False)
    async def buy(order: Order, task: Task) -> Receipt:
        """Sleep instead."""
        await task.sleep(1)
        return Receipt(said="")

    outcome = await replayed(changed, store, task_id)
    assert len(outcome.disagreements) == 1
    assert "step 0:0 was recorded as once, the skill now does sleep" in outcome.disagreements[0]


async def test_a_skill_that_gives_something_else_disagrees():
    """An output is compared with the recorded one, and so are those that are missing and the end."""
    store = MemoryStore()
    task_id = await made(Shop(), store, "look")
    changed = Shop()
    changed.agent.skills.pop("look")

    @changed.agent.skill(scope="look", idempotent=True)
    async def look(order: Order, task: Task) -> Receipt:
        """Look elsewhere."""
        return Receipt(said="2 coats")

    (differs,) = (await replayed(changed, store, task_id)).disagreements
    assert "output 1 of branch 0 differs" in differs
    assert "1 hat" in differs
    assert "2 coats" in differs
    changed.agent.skills.pop("look")

    @changed.agent.skill(scope="look", idempotent=True)
    async def look(order: Order, task: Task) -> None:  # noqa: F811 -- its third version
        """Refuse."""
        task.reject("closed")

    missing, end = (await replayed(changed, store, task_id)).disagreements
    assert "the skill does not make it" in missing
    assert "the log ends COMPLETED" in end
    assert "REJECTED 'closed'" in end


async def test_a_skill_that_is_gone_disagrees():
    """Its name is in the report."""
    store = MemoryStore()
    task_id = await made(Shop(), store, "look")
    changed = Shop()
    changed.agent.skills.pop("look")
    (words,) = (await replayed(changed, store, task_id)).disagreements
    assert "no skill look" in words


async def test_a_skill_that_skips_a_recorded_step_disagrees():
    """What it no longer does is named."""
    store = MemoryStore()
    task_id = await made(Shop(), store, "nap")
    changed = Shop()
    changed.agent.skills.pop("nap")

    @changed.agent.skill(scope="nap", idempotent=False)
    async def nap(order: Order, task: Task) -> Receipt:
        """Do not sleep."""
        await task.now()
        return Receipt(said="True")

    disagreements = (await replayed(changed, store, task_id)).disagreements
    assert [words.partition(",")[0] for words in disagreements] == ["step 0:1", "step 0:2"]


@pytest.mark.parametrize(
    ("skill", "kind", "words"),
    [
        ("buy", "done", "whose outcome is not in the log"),
        ("nap", "done", "step 0:1, sleep, is in the log"),
        ("look", "artifact", "is not in the log"),
    ],
)
async def test_a_log_that_lacks_something_disagrees(skill, kind, words):
    """A log that does not tell of all that an ended task did is not complete."""
    shop, store = Shop(), MemoryStore()
    task_id = await made(shop, store, skill)
    forget(store, task_id, kind)
    if skill == "buy":
        forget(store, task_id, "begun")
    outcome = await replayed(shop, store, task_id)
    assert any(words in found for found in outcome.disagreements), outcome
    assert shop.effects == (skill == "buy")


async def test_a_question_that_the_skill_does_not_ask_disagrees():
    """A task waits for an answer, and its skill now ends without asking."""
    store = MemoryStore()
    task_id = await made(Shop(), store, "choose")
    changed = Shop()
    changed.agent.skills.pop("choose")

    @changed.agent.skill(scope="choose", idempotent=False)
    async def choose(order: Order, task: Task) -> Receipt:
        """Do not ask."""
        await task.progress("thinking")
        await task.now()
        return Receipt(said="red")

    disagreements = (await replayed(changed, store, task_id)).disagreements
    assert any("waits for an answer to step 0:1" in words for words in disagreements)


async def test_a_skill_that_waits_between_its_steps_is_not_waited_for():
    """A replay ends all the same; whether that agrees depends on whether the task did."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        await until(lambda: shop.runs)
        waiting = await replayed(shop, store, task_id, 0.01)
        assert waiting.agrees
        assert [str(stop) for stop in waiting.stops] == ["something between its steps"]
        shop.gate.set()
        await settled(engine, task_id)
    shop.gate.clear()
    assert not (await replayed(shop, store, task_id, 0.01)).agrees
