"""What a slot's last entry announced, and may never have come true, where a store decides key by key."""

from collections.abc import Collection, Mapping

from sidecard.tasks.entry import log_key
from sidecard.tasks.index import Line, Owner
from sidecard.tasks.slot_entry import SlotEntry, digest
from sidecard.tasks.store import StateStore


class Announced:
    """Of the last batch: who dies between announcing it and writing it leaves it to the slot's next holder.

    Each entry is written before what it announces, one batch after the other, so only the last can be wrong.
    """

    def __init__(self) -> None:
        self.tombstones: Mapping[str, bytes] = {}
        self._entry = SlotEntry()

    def __bool__(self) -> bool:
        """Whether there is something that may have to be taken back."""
        return bool(self._entry.announced)

    def names(self, task_id: str, data: bytes) -> bool:
        """Whether it announced this entry of a task, and nobody has looked yet whether that came true."""
        return any(each.task_id == task_id and each.digest == digest(data) for each in self._entry.announced)

    def take(self, entry: SlotEntry, *, before: str = "") -> None:
        """A further entry of the slot; it amends what was announced when the holder of `before` names itself again."""
        if entry.holder is None:
            self._entry = entry
        elif entry.holder == before:
            self._entry = SlotEntry()
        self.tombstones = entry.tombstones

    async def lost(self, store: StateStore) -> set[str]:
        """The tasks of which it announced what did not come true. Raises StoreUnavailable.

        The time of a line would not tell: what another replica stored in that place may be as old, or younger.
        """
        announced = {log_key(each.task_id, each.n): each for each in self._entry.announced}
        stored = await store.read(list(announced))
        return {each.task_id for key, each in announced.items() if digest(stored.get(key, b"")) != each.digest}

    def undone(self, lost: Collection[str]) -> tuple[dict[Owner, list[Line]], dict[str, bool]]:
        """The lines, and changes of the to-do list, that take back what it announced of these tasks."""
        lines: dict[Owner, list[Line]] = {}
        for owner, more in self._entry.lines.items():
            if undone := [line.undone() for line in more if line.task_id in lost and line.at]:
                lines[owner] = undone
        return lines, {task_id: not on for task_id, on in self._entry.todo.items() if task_id in lost}
