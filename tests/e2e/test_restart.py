"""Processes die; tasks do not."""

import asyncio
import signal

import pytest
from a2a.types import Message, TaskState

from sidecard.cli.client import AgentClient
from sidecard.cli.stores import stores
from sidecard.tasks.binding import data_of
from sidecard.tasks.states import TERMINAL

S = TaskState
RECEIPT = "File the 1,800 EUR hotel receipt from Hotel Avenida"


def decision(task):
    found = next(a for a in task.artifacts if a.name == "expense decision")
    return data_of(Message(parts=found.parts))


async def ended(client, task):
    """The task once it has ended, by asking again and again: its agent is killed meanwhile."""
    async with asyncio.timeout(60):
        while (task := await client.get(task.id)).status.state not in TERMINAL:  # noqa: ASYNC110 -- another process ends it
            await asyncio.sleep(0.2)
    return task


@pytest.mark.parametrize("victim", ["orchestrator", "expenses", "compliance", "flights", "vendors", "registry"])
async def test_a_waiting_task_survives_the_death_of_any_app(system, project, victim):
    """Killed while the task waits for the manager and started anew: earlier tasks are there, the waiting one ends."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        earlier = await desk.send("File the 50 EUR taxi receipt from Hotel Avenida")
        waiting = await desk.send(RECEIPT)
        assert waiting.status.state == S.TASK_STATE_INPUT_REQUIRED
        assert system.kill(victim) == 1
        system.restart(victim)
        assert await desk.get(earlier.id) == earlier
        assert (await desk.get(waiting.id)).status.state == S.TASK_STATE_INPUT_REQUIRED
    async with AgentClient.direct(project, "orchestrator", caller="manager") as manager:
        done = await manager.answer(waiting, "approve")
    assert done.status.state == S.TASK_STATE_COMPLETED
    assert decision(done)["approved_by"] == "manager"


async def test_a_task_that_waits_for_another_agent_continues_after_both_die(system, project):
    """Compliance is frozen, the two agents that wait for it are killed and started anew, and the same task ends."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        system.kill("compliance", signal.SIGSTOP)
        task = await desk.send("File the 180 EUR hotel receipt from Hotel Avenida", wait=False)
        await asyncio.sleep(0.5)  # so that the delegation is on its way; the outcome does not depend on it
        for victim in ("orchestrator", "expenses"):
            system.kill(victim)
            system.restart(victim)
        system.kill("compliance", signal.SIGCONT)
        task = await ended(desk, task)
    assert task.status.state == S.TASK_STATE_COMPLETED
    assert decision(task)["decision"] == "approved"


async def test_a_dead_specialist_is_waited_for_and_named(system, project):
    """While flights is dead the task is WORKING, not lost; started anew, it ends with a ticket."""
    async with AgentClient.through_desk(project, "orchestrator") as desk:
        system.kill("flights")
        try:
            task = await desk.send("Book a flight from LHR to Lisbon on 3 March for Ada Lovelace", wait=False)
            assert (await desk.get(task.id)).status.state in (S.TASK_STATE_WORKING, S.TASK_STATE_SUBMITTED)
        finally:
            system.restart("flights")
        task = await ended(desk, task)
    assert task.status.state == S.TASK_STATE_COMPLETED


async def test_what_was_delegated_to_a_dead_agent_is_canceled_when_that_is_back(system, project):
    """The trip is canceled while expenses is dead; started anew, its task ends, and what it had delegated itself."""
    async with AgentClient.through_desk(project, "orchestrator") as desk, stores(project) as opened:
        trip = await desk.send(RECEIPT)
        assert trip.status.state == S.TASK_STATE_INPUT_REQUIRED
        system.kill("expenses")
        try:
            assert (await desk.cancel(trip.id)).status.state == S.TASK_STATE_CANCELED
            folded, _ = await opened.read_log("orchestrator", trip.id)
            (orphan,) = folded.orphans.values()
            assert orphan.agent == "expenses"
            claim, _ = await opened.read_log("expenses", orphan.task_id)
            assert not claim.ended
        finally:
            system.restart("expenses")
        (review,) = claim.children.values()
        async with asyncio.timeout(60):
            for agent, task_id in (("expenses", orphan.task_id), (review.agent, review.task_id)):
                while not (await opened.read_log(agent, task_id))[0].ended:  # noqa: ASYNC110 -- another process ends it
                    await asyncio.sleep(0.2)
                assert (await opened.read_log(agent, task_id))[0].state == S.TASK_STATE_CANCELED
