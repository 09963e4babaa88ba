"""How far the receivers of tasks have been told, and what they are yet to be told: what keeps a task on the outbox."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Told:
    """How far a task's receivers have been told: all of them up to entry `through`, of the `known` ones; and cursors.

    A cursor that is None is deleted. `dead` says whether one of them was given up.
    """

    task_id: str
    through: int
    known: int
    cursors: Mapping[str, bytes | None]
    dead: bool = False
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Due:
    """The last entry of each task that is due to somebody, stored or on its way, until somebody has been told of it.

    Whoever delivers may not know of it yet: so no `Told` takes a task off the outbox that has further to go.
    """

    def __init__(self) -> None:
        self._entries: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, task_id: str, entry: int) -> None:
        """This entry is on its way."""
        self._entries[task_id] = entry

    def lost(self, task_id: str, entry: int) -> None:
        """It was never stored."""
        if self._entries.get(task_id) == entry:
            del self._entries[task_id]

    def beyond(self, told: Told) -> bool:
        """Whether there is more to tell than what was told."""
        return max(told.known, self._entries.get(told.task_id, 0)) > told.through

    def settle(self, told: Told) -> None:
        """It is stored how far the task's receivers have been told."""
        if not self.beyond(told):
            self._entries.pop(told.task_id, None)
