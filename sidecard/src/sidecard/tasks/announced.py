"""What a slot's last entry announced, and may never have come true, where a store decides key by key."""

from collections.abc import Mapping

from sidecard.tasks.index import Line, Owner
from sidecard.tasks.loading import load
from sidecard.tasks.slot_entry import SlotEntry
from sidecard.tasks.store import StateStore


class Announced:
    """Of the last batch: who dies between announcing it and writing it leaves it to the slot's next holder.

    Each entry is written before what it announces, one batch after the other, so only the last can be wrong.
    """

    def __init__(self) -> None:
        self.tombstones: Mapping[str, bytes] = {}
        self._lines: Mapping[Owner, list[Line]] = {}
        self._todo: Mapping[str, bool] = {}

    def __bool__(self) -> bool:
        """Whether there is something that may have to be taken back."""
        return bool(self._lines or self._todo)

    def take(self, entry: SlotEntry, *, before: str = "") -> None:
        """A further entry of the slot; it amends what was announced when the holder of `before` names itself again."""
        if entry.holder is None:
            self._lines, self._todo = entry.lines, entry.todo
        elif entry.holder == before:
            self._lines, self._todo = {}, {}
        self.tombstones = entry.tombstones

    async def amendments(self, store: StateStore) -> tuple[dict[Owner, list[Line]], dict[str, bool]]:
        """The lines, and changes of the to-do list, that take back what did not come true.

        Raises StoreUnavailable, LogBroken.
        """
        lines: dict[Owner, list[Line]] = {}
        todo: dict[str, bool] = {}
        announced = [(owner, line) for owner, more in self._lines.items() for line in more]
        for task_id in {line.task_id for _, line in announced} | set(self._todo):
            folded = await load(store, task_id)
            at = folded.task.status.timestamp.ToMilliseconds() if folded else 0
            todo[task_id] = folded is not None and folded.must_move
            for owner, line in announced:
                if line.task_id == task_id and line.at > at:
                    lines.setdefault(owner, []).append(line.undone())
        return lines, todo
