"""What is done about a delegated task that ends without success: each action, over crashes, and what is never done."""

import asyncio

import pytest
from a2a.types import TaskState

from sidecard import Agent, DelegationFailed, Task
from sidecard.cli.records import words
from sidecard.errors import AgentUnavailable, ConfigurationError
from sidecard.extension import Asked, Ended
from sidecard.tasks import delegating
from sidecard.tasks.binding import text_of
from sidecard.tasks.loading import read_log
from sidecard.tasks.replay import replay
from sidecard.tasks.watch import NotTaken
from sidecard.testing import FakeAgents, MemoryStore, ended, started
from tests.sidecard.tasks.shop import Order, Receipt, Shop, answer, said, send, settled, until

S = TaskState
FAILED, REJECTED = S.TASK_STATE_FAILED, S.TASK_STATE_REJECTED
MADE = Receipt(said="made")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Nobody waits long before a retry."""
    monkeypatch.setattr(delegating, "BACKOFF_SECONDS", (0.001, 0.002, 0.003))


class Buyer(Shop):
    """A shop that has a maker make things; `overrides` are what it says itself should be done."""

    def __init__(self, **overrides: str) -> None:
        super().__init__()

        @self.agent.skill(scope="have", idempotent=False)
        async def have(order: Order, task: Task) -> Receipt:
            """Have it made, and say what went wrong."""
            try:
                return await task.delegate("maker", "make", order, output=Receipt, **overrides)
            except DelegationFailed as failed:
                return Receipt(said=f"{failed.agent} {failed.state}: {failed.reason}")


def bad(number, state=FAILED, action="", *, repeatable=False):
    """A task of the maker that ended so; without an action its agent says nothing of ours."""
    task = ended(f"t{number}", state=state, says=f"no {number}")
    if action:
        Ended(action=action, repeatable=repeatable).attach(task.status.message)
    return task


async def had(buyer, agents, store=None):
    """The task of a buyer, at rest, and its log."""
    store = store or MemoryStore()
    async with started(buyer.agent, store, agents) as engine:
        task_id = await send(engine, buyer, "have")
        task = await settled(engine, task_id)
    return task, await read_log(store, task_id), store


async def agrees(buyer, log):
    """Whether the task's replay is as its log."""
    outcome = await replay(buyer.agent, MemoryStore(), *log, lambda _: buyer.agent.scopes)
    return outcome.agrees and not outcome.stops


def told(log):
    """What followers were told, in order."""
    lines = [words(record) for entry in log[1] for record in entry.records if record[0] == "status"]
    return [line for line in lines if "asked" in line]


# -- retry -----------------------------------------------------------------------------------------------------------


async def test_what_is_idempotent_and_failed_is_asked_for_again_with_backoff():
    """Each time under a messageId of its own, recorded with the wait before it, told, and replayed alike."""
    agents = FakeAgents({"maker": [bad(1, action="retry", repeatable=True), bad(2, action="retry", repeatable=True)]})
    agents.answers["maker"].append(ended("t3", MADE))
    buyer = Buyer()
    task, log, _ = await had(buyer, agents)
    assert said(task) == "made"
    assert len({sent.message_id for _, sent in agents.sent}) == 3
    assert [step.kind for step in log[0].steps.values()] == ["call", "sleep", "call", "sleep", "call"]
    assert ["retry 1 of 3" in told(log)[0], "retry 2 of 3" in told(log)[1]] == [True, True]
    assert "make of maker ended FAILED: no 1" in told(log)[0]
    assert await agrees(buyer, log)


async def test_retries_end_and_the_last_failure_is_told():
    """Three at most, however long it fails."""
    agents = FakeAgents({"maker": [bad(n, action="retry", repeatable=True) for n in range(1, 20)]})
    task, log, _ = await had(buyer := Buyer(), agents)
    assert said(task) == "maker FAILED: no 4"
    assert len(agents.sent) == 4
    assert await agrees(buyer, log)


@pytest.mark.parametrize("overrides", [{}, {"failed": "retry"}, {"failed": "elsewhere"}])
@pytest.mark.parametrize("declared", ["", "retry", "elsewhere", "retry then elsewhere"])
async def test_what_is_not_idempotent_and_failed_is_never_repeated(declared, overrides):
    """Whatever its agent declares beside, or who calls demands: its outcome is not known, so it surfaces."""
    agents = FakeAgents({"maker": [bad(1, action=declared), ended("t2", MADE)], "other": [ended("t3", MADE)]})
    agents.offers["make"] = ["maker", "other"]
    task, _, _ = await had(Buyer(**overrides), agents)
    assert said(task) == "maker FAILED: no 1"
    assert len(agents.sent) == 1


async def test_the_guard_is_what_keeps_it_from_being_repeated(monkeypatch):
    """Without it the same would be done twice."""
    monkeypatch.setattr(delegating, "REPEATING", frozenset())
    agents = FakeAgents({"maker": [bad(1, action="retry"), ended("t2", MADE)]})
    task, _, _ = await had(Buyer(), agents)
    assert said(task) == "made"
    assert len(agents.sent) == 2


@pytest.mark.parametrize("action", ["", "surface", "nonsense", "reject", "escalate", "retry:9"])
async def test_an_end_that_says_nothing_that_is_known_surfaces(action):
    """Foreign agents, later versions, and words that only a caller may use."""
    agents = FakeAgents({"maker": [bad(1, action=action, repeatable=True)]})
    assert said((await had(Buyer(), agents))[0]) == "maker FAILED: no 1"


async def test_what_was_canceled_surfaces():
    """Somebody wanted its end."""
    agents = FakeAgents({"maker": [bad(1, S.TASK_STATE_CANCELED, "retry", repeatable=True)]})
    assert said((await had(Buyer(failed="retry"), agents))[0]) == "maker CANCELED: no 1"


async def test_who_calls_may_have_nothing_retried():
    """The caller knows its own deadline."""
    agents = FakeAgents({"maker": [bad(1, action="retry", repeatable=True)]})
    assert said((await had(Buyer(failed="surface"), agents))[0]) == "maker FAILED: no 1"


async def test_a_crash_between_retries_costs_none_and_adds_none():
    """The next process waits for the recorded moment, and asks as the first would have."""
    agents = FakeAgents({"maker": [bad(1, action="retry", repeatable=True), ended("t2", MADE)]}, hold=asyncio.Event())
    buyer, store = Buyer(), MemoryStore()
    async with started(buyer.agent, store, agents) as engine:
        task_id = await send(engine, buyer, "have")
        agents.hold.set()
        await until(lambda: agents.sent)
        agents.hold.clear()
        await until(lambda: len(agents.sent) == 2)
    agents.hold.set()
    async with started(buyer.agent, store, agents) as engine:
        assert said(await settled(engine, task_id)) == "made"
    log = await read_log(store, task_id)
    assert len({sent.message_id for _, sent in agents.sent}) == 2
    assert [step.kind for step in log[0].steps.values()] == ["call", "sleep", "call"]
    assert await agrees(buyer, log)


# -- elsewhere -------------------------------------------------------------------------------------------------------


async def test_what_was_rejected_goes_to_another_agent_and_never_back():
    """The choice is recorded before it is used; when all have refused, the last refusal is told."""
    agents = FakeAgents({name: [bad(name, REJECTED, "elsewhere")] for name in ("maker", "second", "third")})
    agents.offers["make"] = ["maker", "second", "third"]
    task, log, _ = await had(buyer := Buyer(), agents)
    assert [name for name, _ in agents.sent] == ["maker", "second", "third"]
    assert said(task) == "third REJECTED: no third"
    assert [step.kind for step in log[0].steps.values()] == ["call", "step", "call", "step", "call", "step"]
    assert "second is asked instead" in told(log)[0]
    assert await agrees(buyer, log)


async def test_the_other_agents_result_is_the_result():
    """Nothing else of the task shows that it was not the first."""
    agents = FakeAgents({"maker": [bad(1, REJECTED)], "second": [ended("t2", MADE)]})
    agents.offers["make"] = ["maker", "second"]
    assert said((await had(Buyer(rejected="elsewhere"), agents))[0]) == "made"


async def test_an_agent_that_was_chosen_and_takes_nothing_is_passed_over():
    """It was certain that nothing came of it."""
    agents = FakeAgents({"maker": [bad(1, REJECTED, "elsewhere")], "second": [NotTaken("full")]})
    agents.answers["third"] = [ended("t3", MADE)]
    agents.offers["make"] = ["second", "third"]
    assert said((await had(Buyer(), agents))[0]) == "made"


async def test_an_agent_that_was_chosen_and_may_have_taken_it_ends_the_search():
    """A third one might do it a second time."""
    agents = FakeAgents({"maker": [bad(1, REJECTED, "elsewhere")], "second": [AgentUnavailable("lost")]})
    agents.offers["make"] = ["second", "third"]
    task, _, _ = await had(Buyer(), agents)
    assert (task.status.state, text_of(task.status.message)) == (FAILED, "lost")
    assert len(agents.sent) == 2


async def test_a_registry_that_does_not_answer_leaves_the_refusal():
    """Recorded as that, so that a replay agrees."""

    class Lost(FakeAgents):
        async def another(self, *_):
            raise AgentUnavailable("the registry is down")

    task, log, _ = await had(buyer := Buyer(), Lost({"maker": [bad(1, REJECTED, "elsewhere")]}))
    assert said(task) == "maker REJECTED: no 1"
    assert await agrees(buyer, log)


async def test_a_choice_holds_over_a_crash():
    """Whatever the registry says by then."""
    agents = FakeAgents({"maker": [bad(1, REJECTED, "elsewhere")], "second": [ended("t2", MADE)]})
    agents.offers["make"] = ["second"]
    buyer, store = Buyer(), MemoryStore()
    async with started(buyer.agent, store, agents) as engine:
        task_id = await send(engine, buyer, "have")
        await until(lambda: agents.sent)
        agents.hold = asyncio.Event()
        await until(lambda: len(agents.sent) == 2)
    agents.hold.set()
    agents.offers["make"] = ["third"]
    async with started(buyer.agent, store, agents) as engine:
        assert said(await settled(engine, task_id)) == "made"
    assert {name for name, _ in agents.sent} == {"maker", "second"}


# -- escalate --------------------------------------------------------------------------------------------------------


async def escalated(agents, choice, buyer, by="boss"):
    """What became of a task after somebody decided, what was asked, and its log."""
    store = MemoryStore()
    async with started(buyer.agent, store, agents) as engine:
        task_id = await send(engine, buyer, "have")
        asked = (await settled(engine, task_id)).status.message
    async with started(buyer.agent, store, agents) as engine:
        await answer(engine, buyer, task_id, choice)
        task = await settled(engine, task_id)
    return task, asked, await read_log(store, task_id)


async def test_a_person_with_the_right_decides_and_that_happens():
    """Over a restart; where somebody has refused, nobody decides for themselves."""
    agents = FakeAgents({"maker": [bad(1, REJECTED, "escalate:approve"), ended("t2", MADE)]})
    task, asked, log = await escalated(agents, "retry", buyer := Buyer())
    assert said(task) == "made"
    question = Asked.of(asked)
    assert (question.scope, question.by_other, list(question.options)) == ("approve", True, ["retry", "give_up"])
    assert text_of(asked) == "make of maker ended REJECTED: no 1. What is to be done?"
    assert await agrees(buyer, log)


async def test_a_person_may_leave_it_at_that():
    """Then the failure is told as it was."""
    agents = FakeAgents({"maker": [bad(1, FAILED, "escalate:approve")]})
    task, asked, _ = await escalated(agents, "give_up", Buyer())
    assert said(task) == "maker FAILED: no 1"
    assert Asked.of(asked).by_other is False
    assert next(iter(Asked.of(asked).options)) == "give_up"
    assert "It was checked that it has not happened" in Asked.of(asked).options["retry"]


async def test_actions_follow_one_another():
    """First again, then elsewhere, then a person."""
    always = "retry then elsewhere then escalate:approve"
    agents = FakeAgents({name: [bad(n, FAILED, always, repeatable=True) for n in range(9)] for name in ("maker", "b")})
    agents.offers["make"] = ["b"]
    task, asked, log = await escalated(agents, "give_up", buyer := Buyer())
    assert [name for name, _ in agents.sent] == ["maker"] * 4 + ["b"]
    assert text_of(asked).startswith("make of b ended FAILED")
    assert said(task) == "b FAILED: no 0"
    assert await agrees(buyer, log)


async def test_a_delegation_is_bounded_whoever_decides(monkeypatch):
    """Also a person who never gives up."""
    monkeypatch.setattr(delegating, "MOST_ATTEMPTS", 2)
    agents = FakeAgents({"maker": [bad(n, REJECTED, "escalate:approve") for n in range(9)]})
    buyer, store = Buyer(), MemoryStore()
    async with started(buyer.agent, store, agents) as engine:
        task_id = await send(engine, buyer, "have")
        for number in range(2):
            assert (await settled(engine, task_id)).status.state == S.TASK_STATE_INPUT_REQUIRED
            await answer(engine, buyer, task_id, "retry", f"a{number}")
        assert said(await settled(engine, task_id)) == "maker REJECTED: no 1"
    assert len(agents.sent) == 2


# -- reject ----------------------------------------------------------------------------------------------------------


async def test_who_calls_may_be_rejected_with_what_it_called():
    """For the same reason; an error in code is still one."""
    agents = FakeAgents({"maker": [bad(1, REJECTED)]})
    task, log, _ = await had(buyer := Buyer(rejected="reject"), agents)
    assert (task.status.state, text_of(task.status.message)) == (REJECTED, "no 1")
    assert await agrees(buyer, log)


# -- what is declared ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skill", "state", "action", "repeatable"),
    [("picky", REJECTED, "surface", True), ("broken", FAILED, "surface", False)],
)
async def test_an_end_says_what_its_skill_has_declared(skill, state, action, repeatable):
    """In the last status' message, for whoever has delegated it."""
    shop = Shop()
    async with started(shop.agent, MemoryStore()) as engine:
        task = await settled(engine, await send(engine, shop, skill))
    ending = Ended.of_status(task.status.message)
    assert (task.status.state, ending.action, ending.repeatable) == (state, action, repeatable)


async def test_an_effect_of_unknown_outcome_is_never_called_repeatable():
    """Not even of a skill that is declared idempotent."""
    shop, store = Shop(), MemoryStore()
    begun = asyncio.Event()

    @shop.agent.skill(scope="look", idempotent=True)
    async def careless(order: Order, task: Task) -> str:
        """Have an effect."""

        async def effect() -> str:
            begun.set()
            await asyncio.Event().wait()
            return ""

        return await task.once("effect", effect)

    async with started(shop.agent, store) as engine:
        task_id = await send(engine, shop, "careless")
        await asyncio.wait_for(begun.wait(), 5)
        frozen = dict(store.data)
        engine._stopping = True
    store.data = frozen
    async with started(shop.agent, store) as engine:
        task = await settled(engine, task_id)
    assert "outcome is not known" in text_of(task.status.message)
    assert Ended.of_status(task.status.message) == Ended(action="retry", repeatable=False)


@pytest.mark.parametrize(
    ("actions", "idempotent"),
    [
        ({"failed": "retry"}, False),
        ({"failed": "elsewhere"}, False),
        ({"failed": "escalate:approve then retry"}, False),
        ({"rejected": "retry"}, True),
        ({"rejected": "reject"}, True),
        ({"failed": "hope"}, True),
        ({"failed": "escalate"}, True),
        ({"failed": "retry:3"}, True),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_at_import(actions, idempotent):
    """With what may be said instead."""
    agent = Agent(name="a", version="1", description="d", publisher="p")
    with pytest.raises(ConfigurationError):

        @agent.skill(scope="s", idempotent=idempotent, **actions)
        async def skill(order: Order, task: Task) -> str:
            """Do."""
            return ""
