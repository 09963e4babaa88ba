"""Other agents, which answer as told."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from a2a.types import Message, TaskState, TaskStatus
from a2a.types import Task as A2ATask

from sidecard.callers import Bearing, bearing_none
from sidecard.errors import AgentUnavailable
from sidecard.tasks import binding
from sidecard.tasks.states import TERMINAL


@dataclass
class FakeAgents:
    """Other agents: `answers` holds, per agent, what becomes of each message in turn, a Task or an error to raise.

    A message that is sent again, under its messageId, has what became of it before. Those that are `down` are not
    reached by cancels; `canceled` are the others, with the task, and `withdrawn` with the messageId. `offers` has the
    agents that offer a skill, each the same way.
    """

    answers: dict[str, list[A2ATask | AgentUnavailable]] = field(default_factory=dict)
    sent: list[tuple[str, Message]] = field(default_factory=list)
    canceled: list[tuple[str, str]] = field(default_factory=list)
    withdrawn: list[tuple[str, str]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    down: set[str] = field(default_factory=set)
    offers: dict[str, list[str]] = field(default_factory=dict)
    _given: dict[str, A2ATask | AgentUnavailable] = field(default_factory=dict)

    async def follow(
        self,
        agent: str,
        message: Message,
        tenant: str,
        accepted: Callable[[str], None],
        *,
        known: str = "",
        bearing: Bearing = bearing_none,
    ) -> A2ATask:
        """See tasks.watch.Delegator."""
        self.sent.append((agent, message))
        if message.message_id not in self._given:
            self._given[message.message_id] = self.answers[agent].pop(0)
        answer = self._given[message.message_id]
        if isinstance(answer, AgentUnavailable):
            raise answer
        if self.hold is not None or answer.status.state not in TERMINAL:
            accepted(answer.id)
        if self.hold is not None:
            await self.hold.wait()
        return answer

    async def cancel(self, agent: str, task_id: str, tenant: str, *, bearing: Bearing = bearing_none) -> None:
        """See tasks.watch.Delegator."""
        if agent in self.down:
            raise AgentUnavailable(f"{agent} is down")
        self.canceled.append((agent, task_id))

    async def withdraw(self, agent: str, message: Message, tenant: str) -> None:
        """See tasks.watch.Delegator."""
        if agent in self.down:
            raise AgentUnavailable(f"{agent} is down")
        self.withdrawn.append((agent, message.message_id))

    async def another(self, skill: str, like: str, tried: Sequence[str], tenant: str) -> str:
        """See tasks.watch.Delegator."""
        return next((agent for agent in self.offers.get(skill, ()) if agent not in tried), "")


def ended(task_id: str, *values: object, state: TaskState = TaskState.TASK_STATE_COMPLETED, says: str = "") -> A2ATask:
    """A task of another agent, at rest: with an artifact of these values, and a status that says something."""
    task = A2ATask(id=task_id, context_id=f"c-{task_id}", status=TaskStatus(state=state))
    if values:
        task.artifacts.append(binding.artifact_of("result", "result", *values))
    if says:
        task.status.message.CopyFrom(
            binding.agent_says(says, f"{task_id}:status", task_id=task_id, context_id=task.context_id)
        )
    return task
