"""The engine over a store in memory: what is stored, what is told, what a restart takes up."""

import asyncio
from datetime import date
from decimal import Decimal

import msgpack
import pytest
from a2a.types import TaskState
from pydantic import BaseModel

from sidecard import Task
from sidecard.errors import AgentUnavailable, ConfigurationError
from sidecard.tasks import follower, pending
from sidecard.tasks.context import StepFailed
from sidecard.tasks.engine import Engine
from sidecard.tasks.identity import DifferentMessage
from sidecard.tasks.live import TaskEnded
from sidecard.testing import FakeAgents, MemoryStore, caller, ended, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, idle, said, send, settled, ticks, until

S = TaskState


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
        assert sorted(engine.journal.slot.todo.all) == []
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
        await answer(engine, shop, task_id, "\ue000" * 1_300_000, "long")
        task = await settled(engine, task_id)
        assert task.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert len(task.status.message.parts[0].text) < 1_000
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
        assert sorted(engine.journal.slot.todo.all) == [task_id]
        await until(lambda: shop.runs)
    shop.gate.set()
    async with started(shop.agent, store) as engine:
        assert said(await settled(engine, task_id)) == "at last"
        assert sorted(engine.journal.slot.todo.all) == []
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
        await until(lambda: shop.effects)
    async with started(shop.agent, store) as engine:
        task = await settled(engine, task_id)
    assert task.status.state == S.TASK_STATE_FAILED
    assert "outcome is not known" in task.status.message.parts[0].text
    assert shop.effects == 1


class GatedStore(MemoryStore):
    """Shuts its gate once a task's first entry is stored."""

    def __init__(self):
        super().__init__()
        self.gate, self.waiting = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def write(self, creates, upserts, deletes=()):
        if not self.gate.is_set():
            self.waiting.set()
        await self.gate.wait()
        await super().write(creates, upserts, deletes)
        if any(key.startswith("log:") and key.endswith(":1") for key, _ in creates):
            self.gate.clear()


async def test_an_effect_that_a_stop_forestalls_is_had_after_the_next_start():
    """It was about to begin, and it is known that it did not: nothing about its outcome is unknown."""
    shop, store = Shop(), GatedStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "buy")
        await store.waiting.wait()  # the entry that begins the effect
        stopping = asyncio.create_task(engine.stop())
        await ticks(3)
        store.gate.set()
        await stopping
    assert shop.effects == 0
    async with started(shop.agent, store) as engine:
        task = await settled(engine, task_id)
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert shop.effects == 1


async def test_a_repeatable_effect_is_repeated_under_one_key():
    """Until its outcome is recorded; another step has another key."""
    shop, store, hang = Shop(), MemoryStore(), True

    @shop.agent.skill(scope="hang", idempotent=False)
    async def hang_on(order: Order, task: Task) -> Receipt:
        """Two effects; the second hangs in its first process."""

        async def effect(key: str) -> str:
            shop.keys.append(key)
            if hang and len(shop.keys) == 2:
                await asyncio.Event().wait()
            return key

        first = await task.once("first", effect, repeatable=True)
        return Receipt(said=f"{first} {await task.once('second', effect, repeatable=True)}")

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "hang_on")
        await until(lambda: len(shop.keys) == 2)
    hang = False
    async with started(shop.agent, store) as engine:
        task = await settled(engine, task_id)
    one, two, again = shop.keys
    assert one != two
    assert again == two
    assert said(task) == f"{one} {two}"


async def test_only_an_idempotent_skill_starts_before_its_task_is_stored():
    """It may run again at any time; any other has not begun while nobody knows whether its task will be."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        store.down = True
        slow = asyncio.create_task(send(engine, shop, "slow", "m1"))
        await asyncio.sleep(0.05)
        assert shop.runs == 0
        look = asyncio.create_task(send(engine, shop, "look", "m2"))
        await until(lambda: shop.runs)
        await asyncio.sleep(0.05)
        assert shop.runs == 1
        store.down = False
        shop.gate.set()
        assert said(await settled(engine, await look)) == "1 hat"
        assert said(await settled(engine, await slow)) == "at last"


@pytest.mark.parametrize("how", ["in a group", "beside it"])
async def test_a_parent_that_fails_cancels_what_it_has_delegated(how):
    """Nobody would use the result."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]}, hold=asyncio.Event())

    @shop.agent.skill(scope="fails", idempotent=False)
    async def fails(order: Order, task: Task) -> Receipt:
        """Delegate, and fail meanwhile."""
        group = task.group()
        if how == "beside it":
            group.start(task.delegate("maker", "make", order))
            await asyncio.wait_for(shop.gate.wait(), 5)
            raise RuntimeError
        async with group:
            group.start(task.delegate("maker", "make", order))
            await asyncio.wait_for(shop.gate.wait(), 5)
            raise RuntimeError

    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "fails")
        await until(lambda: agents.sent)
        shop.gate.set()
        assert (await settled(engine, task_id)).status.state == S.TASK_STATE_FAILED
        await idle(engine)
    assert set(agents.canceled) == {("maker", "t9")}


async def test_a_parent_that_completes_cancels_what_it_no_longer_waits_for():
    """It was begun beside the skill, which came to its end without it."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]}, hold=asyncio.Event())

    @shop.agent.skill(scope="hurry", idempotent=False)
    async def hurry(order: Order, task: Task) -> Receipt:
        """Delegate, and end meanwhile."""
        task.group().start(task.delegate("maker", "make", order))
        await asyncio.wait_for(shop.gate.wait(), 5)
        return Receipt(said="enough")

    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "hurry")
        async with engine.borrow(task_id) as live:
            await until(lambda: live.folded.children)
        shop.gate.set()
        assert said(await settled(engine, task_id)) == "enough"
        await idle(engine)
    assert set(agents.canceled) == {("maker", "t9")}


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
        await until(lambda: agents.sent)
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
        await until(lambda: len(agents.sent) == 2)
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
        await until(lambda: agents.sent)
        async with engine.borrow(task_id) as live:
            await asyncio.wait_for(engine.cancel(live, caller(shop.agent)), 5)
            assert live.folded.state == S.TASK_STATE_CANCELED
    assert agents.canceled == [("maker", "t9")]


async def test_a_child_that_has_just_ended_is_not_canceled_when_its_parent_ends():
    """Its outcome is about to be stored, together with the parent's end."""
    shop, store = Shop(), MemoryStore()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]}, hold=asyncio.Event())
    async with started(shop.agent, store, agents) as engine:
        task_id = await send(engine, shop, "through")
        async with engine.borrow(task_id) as live:
            await until(lambda: live.folded.children)
            agents.hold.set()
            assert (await settled(engine, task_id)).status.state == S.TASK_STATE_COMPLETED
            assert not live._outcomes
    assert agents.canceled == []


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
        assert (await engine.journal.slot.lists.of(("", "ada"))).size == 1


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
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store):
        pass
    engine = Engine(shop.agent, store, task_id_key=b"other", delegator=FakeAgents(), scopes_of=lambda _: frozenset())
    with pytest.raises(ConfigurationError, match="task-id-key"):
        await engine.start()


@pytest.mark.parametrize("written", [b"", b"\xc1", msgpack.packb([1, 2])])
async def test_a_store_that_another_version_wrote_refuses_to_start(written):
    """It is said what to do, and nothing is overwritten."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        for number in range(70):
            await settled(engine, await send(engine, shop, "look", f"m{number}"))
    assert "slot:0" in store.data
    store.data["slot:0"] = written
    before = dict(store.data)
    with pytest.raises(ConfigurationError, match="another version of sidecard wrote it"):
        async with started(shop.agent, store):
            pass
    assert store.data == before


def changed_shop(**former):
    """A shop whose skill `choose` takes another way now; `former` is what it keeps of it."""
    changed = Shop()
    before = changed.agent.skills.pop("choose")

    @changed.agent.skill(scope="choose", idempotent=False, version="2")
    async def choose(order: Order, task: Task) -> Receipt:
        """Another way."""
        await task.random()
        return Receipt(said="no questions")

    if former:
        changed.agent.former("choose", **former)(before.function)
    return changed


async def test_a_changed_skill_stops_its_task_instead_of_ending_it(caplog):
    """A run that meets another step than the recorded one parks the task and says so; a start that fits goes on."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
    changed = changed_shop()
    async with started(changed.agent, store) as engine:
        await answer(engine, changed, task_id, "red")
        async with engine.borrow(task_id) as live:
            await until(lambda: not live.run)
            await live.stored()
            assert live.folded.state == S.TASK_STATE_WORKING
    assert "stopped where it is" in caplog.text
    async with started(shop.agent, store) as engine:
        assert said(await settled(engine, task_id)) == "r by ada"


async def test_a_step_with_other_arguments_stops_its_task_too():
    """A question with other words is another question: its answer is not taken for this one's."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
    changed = Shop()
    del changed.agent.skills["choose"]

    @changed.agent.skill(scope="choose", idempotent=False)
    async def choose(order: Order, task: Task) -> Receipt:
        """The same steps in other words."""
        await task.progress("thinking")
        await task.now()
        return Receipt(said=(await task.ask("Which size?", options={"r": "red"})).text)

    async with started(changed.agent, store) as engine:
        await answer(engine, changed, task_id, "red")
        async with engine.borrow(task_id) as live:
            await until(lambda: not live.run)
            await live.stored()
            assert live.folded.state == S.TASK_STATE_WORKING


async def test_a_task_goes_on_with_the_version_of_its_skill_that_it_began_with():
    """As long as that is kept; new tasks have the present one."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "choose")
        await settled(engine, task_id)
    changed = changed_shop(version="1")
    async with started(changed.agent, store) as engine:
        await answer(engine, changed, task_id, "red")
        assert said(await settled(engine, task_id)) == "r by ada"
        assert said(await settled(engine, await send(engine, changed, "choose", "m2"))) == "no questions"


class Fare(BaseModel):
    """What a step may return."""

    day: date
    price: Decimal
    seats: set[str]


async def test_a_step_returns_the_same_types_whenever_the_skill_runs():
    """Models, dates, decimals, sets, tuples and bytes come back from the log as they were at first."""
    shop, store, seen = Shop(), MemoryStore(), []

    async def fare() -> Fare:
        return Fare(day=date(2027, 3, 3), price=Decimal("180.10"), seats={"1A", "2B"})

    async def pair() -> tuple[int, bytes]:
        return 2**70, b"abc"

    async def plain():
        return {"a": (1, None)}

    @shop.agent.skill(scope="types", idempotent=False)
    async def types(order: Order, task: Task) -> Receipt:
        """Keep what steps return."""
        results = [await task.step("fare", fare), await task.once("pair", pair), await task.step("plain", plain)]
        seen.append([*results, (await task.random()).random()])
        return Receipt(said=(await task.ask("Well?")).text)

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "types")
        await settled(engine, task_id)
        await idle(engine)
        await answer(engine, shop, task_id, "yes")
        assert said(await settled(engine, task_id)) == "yes"
    first, second = seen
    assert first == second
    assert first[:3] == [await fare(), (2**70, b"abc"), {"a": [1, None]}]


async def test_what_a_step_raised_is_raised_again(caplog):
    """A failure is an outcome: recorded, the same for every later run, without the details of the unforeseen."""
    shop, store, seen = Shop(), MemoryStore(), []

    async def pay() -> None:
        shop.effects += 1
        raise ValueError("secret detail")

    async def look_up() -> None:
        shop.effects += 1
        raise AgentUnavailable("the register is down: start it")

    @shop.agent.skill(scope="fails", idempotent=False)
    async def fails(order: Order, task: Task) -> Receipt:
        """Go on after failures."""
        for step in (task.once("pay", pay), task.step("look up", look_up)):
            try:
                await step
            except StepFailed as failure:
                seen.append(str(failure))
        return Receipt(said=(await task.ask("Well?")).text)

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "fails")
        await settled(engine, task_id)
        await idle(engine)
        await answer(engine, shop, task_id, "yes")
        assert said(await settled(engine, task_id)) == "yes"
    assert seen[:2] == seen[2:]
    assert "pay failed unexpectedly" in seen[0]
    assert "secret detail" not in seen[0]
    assert seen[1] == "the register is down: start it"
    assert shop.effects == 2
    assert "secret detail" in caplog.text


async def test_what_does_not_fit_into_a_task_is_refused_to_the_skill_alone():
    """The store is never sent more than it takes, so that one task's size is no other task's trouble."""
    shop, store = Shop(), MemoryStore()

    @shop.agent.skill(scope="huge", idempotent=False)
    async def huge(order: Order, task: Task) -> str:
        """Give out far too much."""
        return "x" * 9_000_000

    async with started(shop.agent, store) as engine:
        task = await settled(engine, await send(engine, shop, "huge"))
        assert task.status.state == S.TASK_STATE_FAILED
        assert "use a URL" in task.status.message.parts[0].text


async def test_a_follower_that_does_not_read_is_cut_and_others_are_not(monkeypatch):
    """Its stream ends early, without a terminal event; whoever reads gets everything."""
    monkeypatch.setattr(follower, "MOST_EVENTS", 50)
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "slow")
        async with engine.borrow(task_id) as live:
            slow, fast = live.follow(), live.follow()
            await anext(slow)
            await anext(fast)
            for number in range(200):
                live.append(live.status(S.TASK_STATE_WORKING))
                await live.stored()
                while number % 10 == 0 and live._followers and number < 199:
                    got = await asyncio.wait_for(anext(fast), 1)
                    if got.status.timestamp.ToMilliseconds() == live._prospect.last_status:
                        break
            shop.gate.set()
            await live.settled()
            left = [event async for event in slow]
            rest = [event async for event in fast]
        assert len(left) == 50
        assert left[-1].status.state == S.TASK_STATE_WORKING
        assert rest[-1].status.state == S.TASK_STATE_COMPLETED
        await idle(engine)


async def test_a_first_message_that_does_not_fit_leaves_nothing_in_memory(monkeypatch):
    """Neither a task without a first entry, which everybody who asks for it would wait for."""
    shop, store = Shop(), MemoryStore()
    async with started(shop.agent, store) as engine:
        for skill in ("look", "buy"):
            monkeypatch.setattr(pending, "MOST_RECORD_BYTES", 10)
            with pytest.raises(pending.TooLarge):
                await send(engine, shop, skill, skill)
            assert all(live.folded.n for live in engine._lives.values())
            monkeypatch.undo()
            assert said(await settled(engine, await send(engine, shop, skill, skill))) in ("1 hat", "paid")


async def test_a_result_is_stored_before_what_was_delegated_is_cancelled(monkeypatch):
    """That may take a while; whoever follows, and whoever runs the task again, has the result by then."""
    shop, store, canceling = Shop(), MemoryStore(), asyncio.Event()
    agents = FakeAgents({"maker": [ended("t9", Receipt(said="a hat"))]})
    async with started(shop.agent, store, agents) as engine:
        real = engine._watches.cancel_children

        async def cancel_children(live):
            await canceling.wait()
            return await real(live)

        monkeypatch.setattr(engine._watches, "cancel_children", cancel_children)
        task_id = await send(engine, shop, "through")
        async with engine.borrow(task_id) as live:
            await until(lambda: live.folded.task.artifacts)
            assert not live.ended
            canceling.set()
            assert said(await settled(engine, task_id)) == "made: a hat"
