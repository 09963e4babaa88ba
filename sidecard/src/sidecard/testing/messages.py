"""What a user says, and who it is."""

from a2a.types import Message, Role

from sidecard.agent import Agent
from sidecard.callers import Caller
from sidecard.tasks import binding


def message(text: str = "", message_id: str = "m1", *, data: object = None, task_id: str = "") -> Message:
    """A user's message."""
    values = [value for value in (text, data) if value]
    parts = [part for value in values for part in binding.parts_of(value)]
    return Message(role=Role.ROLE_USER, message_id=message_id, parts=parts, task_id=task_id)


def caller(agent: Agent, name: str = "ada", *scopes: str) -> Caller:
    """A caller that may do everything at this agent, or just what is named."""
    return Caller(name=name, subject=name, scopes=frozenset(scopes) or agent.scopes)
