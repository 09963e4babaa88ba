"""The engine over a store in memory: what is stored, what is told, what a restart takes up."""

import asyncio

import pytest
from a2a.types import TaskState
from pydantic import BaseModel
from sidecard.errors import AgentUnavailable
from sidecard.tasks.engine import DifferentMessage, Engine
from sidecard.tasks.live import TaskEnded
from sidecard.testing import FakeAgents, MemoryStore, caller, ended, message, started

from sidecard import Agent, Task

S = TaskState


class Order(BaseModel):
    """What the test skills take."""

    what: str
    count: int = 1


class Receipt(BaseModel):
    """What they give."""

    said: str


class Shop:
    """An agent whose skills count what they do."""

    def __init__(self) -> None:
        self.agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("approve",))
        self.effects = 0
        self.runs = 0
        self.gate = asyncio.Event()
        agent = self.agent

        @agent.skill(scope="look", idempotent=True)
        async def look(order: Order, task: Task) -> Receipt:
            """Look."""
            self.runs += 1
            return Receipt(said=f"{order.count} {order.what}")

        @agent.skill(scope="buy", idempotent=False)
        async def buy(order: Order, task: Task) -> Receipt:
            """Buy, once."""

            async def pay() -> str:
                self.effects += 1
                return "paid"

            return Receipt(said=await task.once("pay", pay))

        @agent.skill(scope="choose", idempotent=False)
        async def choose(order: Order, task: Task) -> Receipt:
            """Ask which one."""
            self.runs += 1
            await task.progress("thinking")
            moment = await task.now()
            answer = await task.ask("Which colour?", options={"r": "red", "g": "green"})
            assert await task.step("time", asyncio.sleep, 0, moment.isoformat()) == moment.isoformat()
            return Receipt(said=f"{answer.choice} by {answer.by}")

        @agent.skill(scope="through", idempotent=False)
        async def through(order: Order, task: Task) -> Receipt:
            """Have another agent do it."""
            self.runs += 1
            done = await task.delegate("maker", "make", order, output=Receipt)
            return Receipt(said=f"made: {done.said}")

        @agent.skill(scope="both", idempotent=False)
        async def both(order: Order, task: Task) -> Receipt:
            """Have two others do it side by side."""
            async with task.group() as group:
                one = group.start(task.delegate("maker", "make", order, output=Receipt))
                two = group.start(task.delegate("tester", "test", order, output=Receipt))
            return Receipt(said=f"{one.result().said} and {two.result().said}")

        @agent.skill(scope="slow", idempotent=False)
        async def slow(order: Order, task: Task) -> Receipt:
            """Wait for the gate."""
            self.runs += 1
            await self.gate.wait()
            return Receipt(said="at last")

        @agent.skill(scope="broken", idempotent=False)
        async def broken(order: Order, task: Task) -> Receipt:
            """Fail."""
            raise RuntimeError("secret detail")

        @agent.skill(scope="picky", idempotent=True)
        async def picky(order: Order, task: Task) -> Receipt:
            """Refuse."""
            task.reject("not today")
            raise AssertionError

    def skill(self, name: str):
        return self.agent.skills[name]


async def send(engine: Engine, shop: Shop, skill: str, message_id: str = "m1", data: object = None, text: str = ""):
    data = {"what": "hat"} if data is None and not text else data
    sent = message(text, message_id, data=data)
    return await engine.create(caller(shop.agent), "", shop.skill(skill), sent)


async def settled(engine: Engine, task_id: str):
    async with engine.borrow(task_id) as live:
        await asyncio.wait_for(live.settled(), 5)
        return live.folded.public()


async def answer(engine: Engine, shop: Shop, task_id: str, text: str, message_id: str = "a1"):
    async with engine.borrow(task_id) as live:
        await engine.answer(live, caller(shop.agent), message(text, message_id, task_id=task_id))


def said(task) -> str:
    return task.artifacts[-1].parts[0].data.struct_value["said"]


async def test_a_short_idempotent_task_costs_one_write():
    """Entry 1 holds the whole life of a short task; its index line and nothing else goes along."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        before = store.writes
        task = await settled(engine, await send(engine, shop, "look"))
        assert task.status.state == S.TASK_STATE_COMPLETED
        assert said(task) == "1 hat"
        assert store.writes - before == 1
        assert sum(key.startswith(f"log:{task.id}") for key in store.data) == 1


async def test_a_finished_task_is_read_back_after_a_restart():
    """What was acknowledged is still there, with its state and artifacts, in a new process."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "look")
        before = await settled(engine, task_id)
    async with started(shop.agent, store) as engine:
        assert await settled(engine, task_id) == before


async def test_a_repeated_first_message_starts_no_second_task():
    """The same messageId meets the same task, at once and after a restart; the effect happened once."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        ids = await asyncio.gather(*(send(engine, shop, "buy") for _ in range(20)))
        assert len(set(ids)) == 1
        await settled(engine, ids[0])
    async with started(shop.agent, store) as engine:
        assert await send(engine, shop, "buy") == ids[0]
        assert (await settled(engine, ids[0])).status.state == S.TASK_STATE_COMPLETED
    assert shop.effects == 1


async def test_a_repeated_idempotent_message_meets_the_stored_task():
    """An idempotent skill may start before the conflict shows; its second run leaves no trace."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "look")
        stored = dict(store.data)
        assert await send(engine, shop, "look") == task_id
        assert store.data == stored


async def test_another_body_under_a_used_message_id_is_refused():
    """Nothing is overwritten, and the caller learns why."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        await send(engine, shop, "look")
        with pytest.raises(DifferentMessage):
            await send(engine, shop, "look", data={"what": "coat"})


async def test_a_question_leaves_nothing_in_memory_and_survives_a_restart():
    """While a person thinks the task is only stored; the answer continues it, in whatever process."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        task = await settled(engine, task_id)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert task.status.message.parts[0].text == "Which colour?"
        await asyncio.sleep(0.01)
        assert not engine._lives
        assert engine.journal.todo.all() == []
    async with started(shop.agent, store) as engine:
        await answer(engine, shop, task_id, "Green")
        task = await settled(engine, task_id)
        assert task.status.state == S.TASK_STATE_COMPLETED
        assert said(task) == "g by ada"
        assert [m.parts[0].text for m in task.history if m.parts[0].text] == ["thinking", "Which colour?", "Green"]
    assert shop.runs == 2


async def test_an_answer_that_is_no_choice_is_asked_for_again():
    """The question comes back with the reason; the next answer counts."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
        await answer(engine, shop, task_id, "blue", "a1")
        task = await settled(engine, task_id)
        assert "'blue' is none of the choices" in task.status.message.parts[0].text
        await answer(engine, shop, task_id, "red", "a2")
        assert said(await settled(engine, task_id)) == "r by ada"


async def test_a_repeated_answer_counts_once():
    """A continuation is recognised by its messageId, also after the task has ended."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
        await answer(engine, shop, task_id, "red")
        done = await settled(engine, task_id)
        await answer(engine, shop, task_id, "red")
        assert await settled(engine, task_id) == done
        with pytest.raises(DifferentMessage):
            await answer(engine, shop, task_id, "green")


async def test_a_missing_field_is_asked_for_and_an_impossible_one_rejected():
    """Missing: INPUT_REQUIRED naming the field. Wrong: REJECTED with the reason."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "look", data={"count": 2})
        task = await settled(engine, task_id)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert "what" in task.status.message.parts[0].text
        await answer(engine, shop, task_id, "hats")
        assert said(await settled(engine, task_id)) == "2 hats"
        task = await settled(engine, await send(engine, shop, "look", "m2", data={"what": "hat", "count": "many"}))
        assert task.status.state == S.TASK_STATE_REJECTED
        assert "count" in task.status.message.parts[0].text


async def test_a_run_that_was_cut_short_runs_again_over_its_steps():
    """A process that dies in the middle leaves the task on its to-do list; the next one finishes it."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        assert engine.journal.todo.all() == [task_id]
        while not shop.runs:
            await asyncio.sleep(0)
    shop.gate.set()
    async with started(shop.agent, store) as engine:
        assert said(await settled(engine, task_id)) == "at last"
        assert engine.journal.todo.all() == []
    assert shop.runs == 2


async def test_an_effect_with_unknown_outcome_ends_the_task_and_is_not_repeated():
    """Begun and not recorded: FAILED, outcome unknown."""
    shop, store = Shop(), MemoryStore()
    hang = asyncio.Event()

    @shop.agent.skill(scope="hang", idempotent=False)
    async def hang_on(order: Order, task: Task) -> Receipt:
        """Begin an effect and never end it."""

        async def effect() -> None:
            shop.effects += 1
            await hang.wait()

        await task.once("effect", effect)
        return Receipt(said="never")

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "hang_on")
        while not shop.effects:
            await asyncio.sleep(0)
    async with started(shop.agent, store) as engine:
        task = await settled(engine, task_id)
    assert task.status.state == S.TASK_STATE_FAILED
    assert "outcome is not known" in task.status.message.parts[0].text
    assert shop.effects == 1


async def test_delegation_sends_one_stable_message_and_uses_the_result():
    """The other agent is asked under a messageId that a retry would repeat; its data comes back as a model."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]})
    async with started(shop.agent, store, agents) as engine:
        task = await settled(engine, await send(engine, shop, "through"))
        assert said(task) == "made: a hat"
    assert len(agents.sent) == 1


async def test_a_delegation_is_followed_again_after_a_restart_under_the_same_message():
    """The parent dies while the child works: the new process sends the very same message."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))] * 2}, hold=asyncio.Event())
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "through")
        while not agents.sent:
            await asyncio.sleep(0)
    agents.hold.set()
    async with started(shop.agent, store, agents) as engine:
        assert said(await settled(engine, task_id)) == "made: a hat"
    first, second = (sent for _, sent in agents.sent)
    assert first.message_id == second.message_id


async def test_a_childs_question_climbs_and_its_answer_descends():
    """INPUT_REQUIRED of the child is the parent's; the answer continues the same child."""
    shop, store = Shop(), MemoryStore()
    asks = ended("t9", state=S.TASK_STATE_INPUT_REQUIRED, says="Which size?")
    agents = FakeAgents({"maker": [asks, ended("t9", Receipt(said="a big hat"))]})
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "through")
        task = await settled(engine, task_id)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert task.status.message.parts[0].text == "Which size?"
        await answer(engine, shop, task_id, "big")
        assert said(await settled(engine, task_id)) == "made: a big hat"
    assert agents.sent[1][1].task_id == "t9"
    assert agents.sent[1][1].parts[0].text == "big"


async def test_branches_work_side_by_side_and_wait_together():
    """Two delegations are under way at once, and both results come back."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents(
        {"maker": [ended("t1", Receipt(said="made"))], "tester": [ended("t2", Receipt(said="tested"))]},
        hold=asyncio.Event(),
    )
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "both")
        while len(agents.sent) < 2:
            await asyncio.sleep(0)
        agents.hold.set()
        assert said(await settled(engine, task_id)) == "made and tested"


async def test_a_child_that_fails_fails_the_parent_with_its_reason():
    """The reason of the other agent is told on."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9", state=S.TASK_STATE_REJECTED, says="no cloth")]})
    async with started(shop.agent, store, agents) as engine:
        task = await settled(engine, await send(engine, shop, "through"))
        assert task.status.state == S.TASK_STATE_FAILED
        assert "no cloth" in task.status.message.parts[0].text


async def test_an_unreachable_agent_fails_the_task_with_what_to_do():
    """Patience is the delegator's; once it is over the task says so."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [AgentUnavailable("maker can't be reached: start it")]})
    async with started(shop.agent, store, agents) as engine:
        task = await settled(engine, await send(engine, shop, "through"))
        assert task.status.state == S.TASK_STATE_FAILED
        assert "start it" in task.status.message.parts[0].text


async def test_cancel_stops_the_run_and_reaches_the_child():
    """CANCELED, and the delegated task is told."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9")]}, hold=asyncio.Event())
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "through")
        while not agents.sent:
            await asyncio.sleep(0)
        async with engine.borrow(task_id) as live:
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
            assert live.folded.state == S.TASK_STATE_CANCELED
    assert agents.canceled == [("maker", "t9")]


async def test_a_waiting_task_can_be_canceled_and_an_ended_one_can_not():
    """A question is withdrawn by cancel; after that nothing more is taken."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
        async with engine.borrow(task_id) as live:
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
            assert live.folded.state == S.TASK_STATE_CANCELED
            with pytest.raises(TaskEnded):
                await engine.cancel(live, caller(shop.agent))


async def test_an_unforeseen_error_fails_the_task_without_its_details(caplog):
    """The log has the traceback, the caller does not."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task = await settled(engine, await send(engine, shop, "broken"))
    assert task.status.state == S.TASK_STATE_FAILED
    assert "secret detail" not in str(task)
    assert "secret detail" in caplog.text


async def test_a_rejection_is_an_outcome():
    """REJECTED with the skill's own words."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task = await settled(engine, await send(engine, shop, "picky"))
        assert task.status.state == S.TASK_STATE_REJECTED
        assert task.status.message.parts[0].text == "not today"


async def test_nothing_is_acknowledged_while_the_store_is_down_and_nothing_is_lost_after():
    """A create waits for its entry; when the store is back it is written once."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        store.down = True
        sending = asyncio.create_task(send(engine, shop, "buy"))
        await asyncio.sleep(0.2)
        assert not sending.done()
        store.down = False
        task_id = await sending
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_COMPLETED
    assert shop.effects == 1


async def test_a_lost_answer_of_the_store_is_no_lost_write():
    """The journal reads back what is there instead of writing twice or failing."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        store.lose_answers = 1
        task = await settled(engine, await send(engine, shop, "look"))
        assert task.status.state == S.TASK_STATE_COMPLETED
        assert (await engine.journal.list_of("", "ada")).size == 1


async def test_followers_get_the_task_and_then_every_event_in_order():
    """The stream begins with the task and ends with its terminal status; timestamps rise."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        async with engine.borrow(task_id) as live:
            events = live.follow()
            first = await anext(events)
            shop.gate.set()
            rest = [event async for event in events]
    assert first.id == task_id
    states = [e.status.state for e in rest if hasattr(e, "status")]
    assert states[-1] == S.TASK_STATE_COMPLETED
    stamps = [e.status.timestamp.ToMilliseconds() for e in rest if hasattr(e, "status")]
    assert stamps == sorted(set(stamps))


async def test_another_task_id_key_refuses_to_start():
    """With another key no repeated message would be recognised, so the engine does not start."""
    from sidecard.errors import ConfigurationError

    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store):
        pass
    engine = Engine(shop.agent, store, task_id_key=b"other", delegator=FakeAgents(), scopes_of=lambda _: frozenset())
    with pytest.raises(ConfigurationError, match="task-id-key"):
        await engine.start()


async def test_a_changed_skill_stops_its_task_instead_of_ending_it(caplog):
    """A run that meets another step than the recorded one parks the task and says so."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)

    changed = Shop()
    del changed.agent.skills["choose"]

    @changed.agent.skill(scope="choose", idempotent=False)
    async def choose(order: Order, task: Task) -> Receipt:
        """Another way."""
        await task.random()
        return Receipt(said="no")

    async with started(changed.agent, store) as engine:
        await answer(engine, changed, task_id, "red")
        async with engine.borrow(task_id) as live:
            while live.run:
                await asyncio.sleep(0)
            assert live.folded.state == S.TASK_STATE_WORKING
    assert "stopped where it is" in caplog.text
