"""How the batches of a journal become true: by the next entry of its slot, which lists what they hold."""

import abc
from collections.abc import Mapping, Sequence
from functools import partial

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.batch import Append, Batch, end
from sidecard.tasks.mail import mark
from sidecard.tasks.patience import patiently
from sidecard.tasks.slot_entry import Announcement
from sidecard.tasks.slots import Slot, Staged
from sidecard.tasks.store import StateStore
from sidecard.tasks.told import Due, Told


class Deposed(TaskConflict):
    """Somebody has taken this replica's slot over, taking it for dead."""


class Commits(abc.ABC):
    """Commits one batch after the other, each tried until it is known what became of it; see the two kinds of it."""

    def __init__(self, store: StateStore, slot: Slot, due: Due) -> None:
        self.store = store
        self._slot = slot
        self._due = due

    async def commit(self, batch: Batch) -> None:
        """Return once all of it is stored, or lost to somebody else; each write in it learns which. Raises Deposed."""
        await self._write(batch)
        for one in batch.told:
            self._due.settle(one)
        end(None, *batch.others)

    @abc.abstractmethod
    async def _write(self, batch: Batch) -> None:
        """Write it, and tell the appends that are stored, and those that have lost."""

    async def _stage(self, appends: Sequence[Append], batch: Batch, announced: Sequence[Announcement] = ()) -> Staged:
        """The slot's next entry for these appends, which are what is left of a batch, and the rest of that batch."""
        sweep = batch.sweep
        lines = {owner: list(more) for owner, more in sweep.lines.items()} if sweep else {}
        for append in appends:
            if append.line:
                lines.setdefault(append.owner, []).append(append.line)
        todo = {append.task_id: append.listed for append in appends if append.listed is not None}
        due = {append.task_id: True for append in appends if append.due}
        due |= {one.task_id: self._due.beyond(one) for one in batch.told}
        due |= {mark(one.task_id): one.dead for one in batch.told}
        acts = [*batch.acts, *(act for append in appends for act in append.acts)]
        swept = sweep.sweep if sweep else None
        staged = await self._slot.stage(lines, todo, due, sweep=swept, acts=acts, announced=announced)
        staged.deletes += [key for key, cursor in _cursors(batch.told).items() if cursor is None]
        return staged

    async def _create(
        self,
        staged: Staged,
        creates: list[tuple[str, bytes]],
        upserts: Mapping[str, bytes],
        deletes: Sequence[str],
    ) -> bool:
        """Send a batch with the slot's next entry once; whether it is stored. Raises Deposed."""
        try:
            await self.store.write([*creates, (staged.key, staged.data)], upserts, deletes)
        except (TaskConflict, StoreUnavailable):
            stored = await patiently(partial(self.store.read, [staged.key]))
            if staged.key not in stored:
                return False
            if stored[staged.key] != staged.data:
                raise Deposed(f"{staged.key} was written by somebody else") from None
        return True

    def _without(self, appends: Sequence[Append], lost: Sequence[Append]) -> list[Append]:
        """The appends without those who have lost, who learn that. Nothing of theirs is due: it was never stored."""
        for append in lost:
            if append.due:
                self._due.lost(append.task_id, append.n)
            end(TaskConflict(f"{append.key} was written by somebody else"), append)
        return [append for append in appends if append not in lost]


def beside(appends: Sequence[Append], told: Sequence[Told]) -> dict[str, bytes]:
    """What is overwritten beside the logs: hints, and cursors."""
    hints = {key: hint for append in appends for key, hint in append.hints.items()}
    return hints | {key: cursor for key, cursor in _cursors(told).items() if cursor is not None}


def _cursors(told: Sequence[Told]) -> dict[str, bytes | None]:
    """The last word on each counts."""
    return {key: cursor for one in told for key, cursor in one.cursors.items()}
