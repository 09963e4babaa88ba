"""Committing where a store decides key by key (Redis): what will be written is announced, and taken back if it lost."""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.batch import Append, Batch, end
from sidecard.tasks.commits import Commits, Deposed, beside
from sidecard.tasks.patience import patiently, pause
from sidecard.tasks.slot_entry import Announcement, digest, slot_key
from sidecard.tasks.slots import Slot, Staged
from sidecard.tasks.store import StateStore
from sidecard.tasks.told import Due

INDEX_HEAD_COLONS = 2


class Announcements(Commits):
    """The slot's entry announces a batch, then each task entry is tried: so everything that is stored is listed.

    What lost is taken back by a further entry; when this process dies in between, whoever takes the slot over does so
    (see announced.py).
    """

    def __init__(self, store: StateStore, slot: Slot, due: Due, unquestioned: Callable[[float], bool]) -> None:
        """`unquestioned` tells whether nobody can have taken this replica for dead since a moment (time.monotonic)."""
        super().__init__(store, slot, due)
        self._unquestioned = unquestioned

    async def _write(self, batch: Batch) -> None:
        slot, appends = self._slot, batch.appends
        due = {append.task_id: append.task_id in slot.outbox.all for append in appends if append.due}
        began, number = time.monotonic(), slot.trail.number + len(batch.acts)
        announced = [Announcement(append.task_id, append.n, digest(append.data)) for append in appends]
        staged = await patiently(partial(self._stage, appends, batch, announced))
        await self._announce(staged, beside(appends, batch.told))
        won = await self._decide_each(appends)
        if not self._unquestioned(began):
            await self._check_holder()
        if lost := [append for append in appends if append not in won]:
            undue = {append.task_id: due[append.task_id] for append in lost if append.due}
            tasks, void = {append.task_id for append in lost}, _numbers(appends, lost, number)
            amended = await patiently(partial(slot.take_back, tasks, undue, void))
            await self._announce(amended, {})
        end(None, *won)

    async def _announce(self, staged: Staged, beside_logs: dict[str, bytes]) -> None:
        attempt = 0
        while not await self._create(staged, [], {}, ()):
            await pause(attempt)
            attempt += 1
        upserts = beside_logs | staged.upserts
        for rank in range(3):
            if some := {key: value for key, value in upserts.items() if _rank(key) == rank}:
                await self._insist(some)
        if staged.deletes:
            await self._insist({}, staged.deletes)
        self._slot.settle(staged)

    async def _insist(self, upserts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> None:
        """Write what nobody else writes, until it is written."""
        for attempt in itertools.count():
            try:
                await self.store.write([], upserts, deletes)
            except (TaskConflict, StoreUnavailable):
                await pause(attempt)
            else:
                return

    async def _decide_each(self, appends: Sequence[Append]) -> Sequence[Append]:
        """Create task entries, each for itself; returns those that have won."""
        attempt = 0
        absent = appends
        while absent:
            with contextlib.suppress(TaskConflict, StoreUnavailable):
                await self.store.write([(append.key, append.data) for append in absent], {})
                break
            stored = await patiently(partial(self.store.read, [append.key for append in appends]))
            appends = self._without(appends, [a for a in appends if stored.get(a.key, a.data) != a.data])
            absent = [append for append in appends if append.key not in stored]
            if absent:
                await pause(attempt)
                attempt += 1
        return appends

    async def _check_holder(self) -> None:
        """Raises Deposed when somebody has taken the slot: what was stored since is on nobody's list.

        Who takes a slot looks afterwards what its last entry announced came true. So what is stored before this finds
        nobody there is listed, and may be acknowledged.
        """
        key = slot_key(self._slot.number, self._slot.n + 1)
        if key in await patiently(partial(self.store.read, [key])):
            raise Deposed(f"{key} was written by somebody else")


def _numbers(appends: Sequence[Append], lost: Sequence[Append], number: int) -> list[int]:
    """Under which numbers the acts of those that have lost went into the audit, where the first is behind `number`."""
    numbers: list[int] = []
    for append in appends:
        if append in lost:
            numbers += range(number + 1, number + 1 + len(append.acts))
        number += len(append.acts)
    return numbers


def _rank(key: str) -> int:
    """Which of the keys that are overwritten must be written first: pages, heads of lists, head of the slot."""
    kind, colons = key.partition(":")[0], key.count(":")
    return 2 if kind == "slot" else 1 if kind == "index" and colons == INDEX_HEAD_COLONS else 0
