"""A run's outputs on their way through content inspection, each before it is stored; see screening."""

from dataclasses import replace
from typing import Any

from a2a.types import Artifact, Message

from sidecard.screening import tools
from sidecard.screening.finding import Direction, Withheld
from sidecard.screening.guard import Guard, Outcome
from sidecard.screening.pieces import Pieces
from sidecard.tasks.entry import Record
from sidecard.tasks.live import Live

IN_PIECES = "pieces"
"""In a task's meta: chunks of its artifacts are held back as far as they may be the beginning of something."""


class Screened:
    """One task's way out. Without a guard everything passes as it is, at no cost."""

    def __init__(self, live: Live, guard: Guard | None) -> None:
        self._live = live
        self._guard = guard
        self._skill = live.meta["skill"]
        self._pieces: dict[tuple[str, str], Pieces] = {}

    async def artifact(self, artifact: Artifact) -> tuple[list[Record], bytes]:
        """An artifact as it may be stored, and the decisions to store with it. Raises Withheld, ScreeningFailed."""
        if self._guard is None:
            return [], artifact.SerializeToString()
        outcome = await self._guard.gives(self._skill, self._live.task_id, artifact)
        return self._passed(outcome), artifact.SerializeToString()

    def piece(self, branch: str, name: str, text: str, *, last: bool) -> tuple[str, Pieces | None, str]:
        """What of a chunk's text goes now, its artifact's pieces, and what went before it. It must be told of each.

        Without content inspection, when the task began, all of it goes.
        """
        if not self._live.meta.get(IN_PIECES):
            return text, None, ""
        pieces = self._pieces.setdefault((branch, name), Pieces())
        before, goes = pieces.take(text, last=last)
        if last:
            del self._pieces[branch, name]
        return goes, pieces, before

    def held(self, branch: str = "") -> list[tuple[str, str]]:
        """The artifacts, by branch and name, of which something is held: of a branch, or in all."""
        return sorted(key for key, one in self._pieces.items() if one.holds and branch in ("", key[0]))

    def forget(self, branch: str, name: str) -> None:
        """An artifact is replaced: what is held of it goes nowhere."""
        self._pieces.pop((branch, name), None)

    async def given_on(self, artifact: Artifact, pieces: Pieces | None, before: str) -> tuple[list[Record], bytes]:
        """The same as for an artifact, for a piece of its text."""
        if self._guard is None or pieces is None:
            return await self.artifact(artifact)
        outcome = await self._guard.gives_on(self._skill, self._live.task_id, artifact, before, pieces)
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
