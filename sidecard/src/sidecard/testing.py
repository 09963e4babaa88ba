"""Fakes for the tests of pure code: a store that decides as a Dapr state store does, and agents that answer as told.

from sidecard.testing import FakeAgents, MemoryStore, started
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from a2a.types import Message, Role, TaskState, TaskStatus
from a2a.types import Task as A2ATask

from sidecard.agent import Agent
from sidecard.callers import Caller
from sidecard.errors import AgentUnavailable, StoreUnavailable, TaskConflict
from sidecard.tasks import binding
from sidecard.tasks.engine import Engine

KEY = b"only for tests"


class MemoryStore:
    """A transactional state store in memory. Set `down` to make it answer nothing, `lose_answers` to lose its answers."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.down = False
        self.lose_answers = 0
        self.writes = 0

    async def write(self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes]) -> None:
        """See tasks.store.StateStore."""
        await asyncio.sleep(0)
        self._answer()
        if any(key in self.data for key, _ in creates):
            raise TaskConflict("a key exists already")
        self.data.update(dict(creates) | dict(upserts))
        self.writes += 1
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable("the answer was lost")

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See tasks.store.StateStore."""
        await asyncio.sleep(0)
        self._answer()
        return {key: self.data[key] for key in keys if key in self.data}

    async def delete(self, keys: Sequence[str]) -> None:
        """See tasks.store.StateStore."""
        self._answer()
        for key in keys:
            self.data.pop(key, None)

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")


@dataclass
class FakeAgents:
    """Other agents: `answers` holds, per agent, what becomes of each message in turn, a Task or an error to raise."""

    answers: dict[str, list[A2ATask | AgentUnavailable]] = field(default_factory=dict)
    sent: list[tuple[str, Message]] = field(default_factory=list)
    canceled: list[tuple[str, str]] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def follow(self, agent: str, message: Message, tenant: str, accepted: Callable[[str], None]) -> A2ATask:
        """See tasks.engine.Delegator."""
        self.sent.append((agent, message))
        answer = self.answers[agent].pop(0)
        if isinstance(answer, AgentUnavailable):
            raise answer
        accepted(answer.id)
        if self.hold is not None:
            await self.hold.wait()
        return answer

    async def cancel(self, agent: str, task_id: str, tenant: str) -> None:
        """See tasks.engine.Delegator."""
        self.canceled.append((agent, task_id))


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


def message(text: str = "", message_id: str = "m1", *, data: object = None, task_id: str = "") -> Message:
    """A user's message."""
    values = [value for value in (text, data) if value]
    parts = [part for value in values for part in binding.parts_of(value)]
    return Message(role=Role.ROLE_USER, message_id=message_id, parts=parts, task_id=task_id)


def caller(agent: Agent, name: str = "ada", *scopes: str) -> Caller:
    """A caller that may do everything at this agent, or just what is named."""
    return Caller(name=name, subject=name, scopes=frozenset(scopes) or agent.scopes)


@contextlib.asynccontextmanager
async def started(agent: Agent, store: MemoryStore, agents: FakeAgents | None = None) -> AsyncIterator[Engine]:
    """An engine of this agent on a store; leaving the block is like stopping the process."""
    engine = Engine(
        agent, store, task_id_key=KEY, delegator=agents or FakeAgents(), scopes_of=lambda _: agent.scopes
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
