"""A run's outputs on their way through content inspection, each before it is stored; see screening."""

from dataclasses import replace
from typing import Any

from a2a.types import Artifact, Message

from sidecard.screening import tools
from sidecard.screening.finding import Direction, Withheld
from sidecard.screening.guard import Guard, Outcome
from sidecard.tasks.entry import Record
from sidecard.tasks.live import Live


class Screened:
    """One task's way out. Without a guard everything passes as it is, at no cost."""

    def __init__(self, live: Live, guard: Guard | None) -> None:
        self._live = live
        self._guard = guard
        self._skill = live.meta["skill"]

    async def artifact(self, artifact: Artifact) -> tuple[list[Record], bytes]:
        """An artifact as it may be stored, and the decisions to store with it. Raises Withheld, ScreeningFailed."""
        if self._guard is None:
            return [], artifact.SerializeToString()
        outcome = await self._guard.gives(self._skill, self._live.task_id, artifact)
        return self._passed(outcome), artifact.SerializeToString()

    async def status(self, message: Message) -> tuple[list[Record], bytes]:
        """The same for what a status says."""
        if self._guard is None:
            return [], message.SerializeToString()
        outcome = await self._guard.says(self._skill, self._live.task_id, message)
        return self._passed(outcome), message.SerializeToString()

    async def signed(self, message: Message) -> list[Record]:
        """The same for a question that another agent has signed: nothing in it can be replaced."""
        if self._guard is None:
            return []
        outcome = await self._guard.says(self._skill, self._live.task_id, message)
        if outcome.changed:
            outcome = replace(
                outcome, withheld="The question was withheld: it is signed as it is, and may not pass so."
            )
        return self._passed(outcome)

    async def request(self, agent: str, message: Message) -> list[Record]:
        """The same for what another agent is sent, which is changed in place."""
        if self._guard is None:
            return []
        return self._passed(await self._guard.asks(self._skill, self._live.task_id, agent, message))

    async def tool(self, tool: str, value: Any, direction: Direction) -> Any:  # noqa: ANN401 -- JSON
        """The same for what a tool is asked (OUT) or answers (IN): the decisions are appended."""
        if self._guard is None:
            return value
        passed, outcome = await tools.inspect(
            self._guard, value, direction, tool=tool, skill=self._skill, task_id=self._live.task_id
        )
        if decided := self._passed(outcome):
            self._live.append(*decided)
        return passed

    def reveal(self, text: str) -> str:
        """A text with what was redacted in this task put back."""
        if self._guard is None:
            return text
        return self._guard.reveal(self._live.task_id, self._live.sealed, text)

    def _passed(self, outcome: Outcome) -> list[Record]:
        if outcome.withheld:
            self._live.append(*outcome.records)
            raise Withheld(outcome.withheld)
        return list(outcome.records)
