"""What the log of a task says that happened, and whether A2A allows it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from a2a.types import Message, TaskState

from chaos import servers
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.state import EVENTS
from sidecard.tasks.states import TERMINAL

READ = 16
AT_ONCE = 8
S = TaskState
RUNNING: frozenset[int] = frozenset(
    {S.TASK_STATE_WORKING, S.TASK_STATE_INPUT_REQUIRED, S.TASK_STATE_AUTH_REQUIRED} | TERMINAL  # and what ends it
)
MOVES: dict[int, frozenset[int]] = {
    S.TASK_STATE_SUBMITTED: RUNNING,
    S.TASK_STATE_WORKING: RUNNING,
    S.TASK_STATE_INPUT_REQUIRED: RUNNING - {S.TASK_STATE_INPUT_REQUIRED},
    S.TASK_STATE_AUTH_REQUIRED: RUNNING - {S.TASK_STATE_AUTH_REQUIRED},
}
"""What may follow each state (A2A 1.0 §4.1.3): nothing leads back to SUBMITTED, and nothing out of a terminal one."""
REASONS = ("its outcome is not known", "was given up")
"""What a task may say that FAILED without an error of its skill: see docs/durability.md."""


@dataclass
class History:
    """A task's log: its states and their times in order, the messages taken, and the places of what webhooks are told.

    `says` is what its last status says.
    """

    states: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    messages: set[str] = field(default_factory=set)
    events: list[tuple[int, int]] = field(default_factory=list)
    says: str = ""

    def take(self, n: int, entry: Entry) -> None:
        """Add the next entry."""
        for number, record in enumerate(entry.records):
            if record[0] in EVENTS:
                self.events.append((n, number))
            if record[0] == "status":
                self.times.append(record[1])
                self.states.append(record[2])
                self.says = "".join(part.text for part in Message.FromString(record[3]).parts)
            if record[0] == "message":
                self.messages.add(record[1])

    @property
    def terminals(self) -> int:
        """How many terminal states it has reached."""
        return sum(state in TERMINAL for state in self.states)

    @property
    def legal(self) -> bool:
        """Whether A2A allows its moves, and time only goes forward."""
        begins = self.states[:1] == [S.TASK_STATE_SUBMITTED] or not self.states
        moves = all(after in MOVES.get(before, ()) for before, after in zip(self.states, self.states[1:], strict=False))
        return begins and moves and self.times == sorted(set(self.times))

    @property
    def explained(self) -> bool:
        """Whether a task that FAILED says why it had to."""
        failed = self.states[-1:] == [S.TASK_STATE_FAILED]
        return not failed or any(reason in self.says for reason in REASONS)

    def shows(self, seen: Sequence[str]) -> bool:
        """Whether somebody who looked now and then can have seen these states, in this order."""
        states = iter(self.states)
        return all(any(S.Name(state) == one for state in states) for one in seen)


async def histories(sidecar: servers.Sidecar, task_ids: Sequence[str]) -> dict[str, History]:
    """The logs of tasks, read through that sidecar; a log without entries has no states."""
    store = sidecar.store()
    places = asyncio.Semaphore(AT_ONCE)

    async def read(task_id: str) -> History:
        history, first = History(), 1
        async with places:
            while True:
                keys = [log_key(task_id, n) for n in range(first, first + READ)]
                stored = await store.read(keys)
                for n, key in enumerate(keys, first):
                    if key not in stored:
                        return history
                    history.take(n, Entry.unpack(stored[key]))
                first += READ

    try:
        return dict(zip(task_ids, await asyncio.gather(*map(read, task_ids)), strict=True))
    finally:
        await store.close()
