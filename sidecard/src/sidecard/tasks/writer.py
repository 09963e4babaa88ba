"""Writes what a task has pending into its log: one entry at a time, each on top of whatever stands there by then."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from sidecard.errors import SidecardError, StoreUnavailable, TaskConflict
from sidecard.tasks.entry import Entry, Record
from sidecard.tasks.journal import Journal
from sidecard.tasks.loading import catch_up
from sidecard.tasks.next_entry import NextEntry, has_lease
from sidecard.tasks.patience import patiently
from sidecard.tasks.pending import Pending
from sidecard.tasks.state import FoldedTask

log = logging.getLogger("sidecard.tasks")

GAP_SECONDS = 0.1
GATHER_SECONDS = 0.005
"""How long the chunks that came while an entry was stored wait for more: a stream that is faster than the store would
else fill entry after entry with a handful of them."""
FAIR_RACES = 2
"""Races that an outsider may lose before it knocks."""


class Neighbours(Protocol):
    """The other replicas."""

    def alive(self, replica: str) -> bool:
        """Whether that one is alive, and so moves its tasks on."""

    async def knock(self, replica: str, task_id: str) -> None:
        """Make that one look at a task of its own soon. Raises StoreUnavailable."""


class Written(Protocol):
    """The task that is written, and learns what becomes of it."""

    @property
    def run(self) -> object:
        """Its run in this process; None when there is none."""

    @property
    def lost(self) -> SidecardError | None:
        """Why it can't be written here any more."""

    @property
    def owned(self) -> bool:
        """Whether this replica moves the task on."""

    def take_in(self, entry: Entry, *, own: bool) -> None:
        """Fold an entry that is stored, this replica's `own` or another's."""

    def rebase(self) -> None:
        """Let what is pending follow what others have stored. Raises TaskEnded."""

    def lose(self, error: SidecardError) -> None:
        """Stop: nothing more of it can be written here."""

    def flushed(self) -> None:
        """Nothing of it is being written any more."""


class Writer:
    """At most one entry is in flight; what others have written first is folded in, and the rest tried again behind it.

    A task that rests, or whose owner is dead, is taken over with the entry. To one that another replica moves on this
    one writes as an outsider, and knocks, so that its owner looks.
    """

    def __init__(
        self,
        journal: Journal,
        neighbours: Neighbours,
        folded: FoldedTask,
        meta: dict[str, str],
        pending: Pending,
        *,
        replica: str,
        clock: Callable[[], int],
    ) -> None:
        """`pending` is what it writes to the log of the task `folded`; `clock` gives UTC in milliseconds."""
        self._journal = journal
        self._neighbours = neighbours
        self._folded = folded
        self._meta = meta
        self._pending = pending
        self._clock = clock
        self._next = NextEntry(folded, replica)
        self._flushing: asyncio.Task[None] | None = None
        self._held: asyncio.TimerHandle | None = None
        self._pausing = False
        self._races = 0

    @property
    def writing(self) -> bool:
        """Whether something is being written, or about to be."""
        return self._flushing is not None or self._held is not None

    def start(self, task: Written) -> None:
        """Write what is pending, and what will be while that is written; not while it is held, unless it is much."""
        if self._pending.full:
            self.forget_hold()
        if self._flushing is None and self._held is None:
            self._flushing = asyncio.create_task(self._flush(task), name=f"flush {self._meta['task']}")

    def cancel(self) -> list[asyncio.Task[None]]:
        """Stop writing; what is in flight may be stored all the same. Returns what ends when that is done."""
        self.forget_hold()
        if self._flushing is None:
            return []
        self._flushing.cancel()
        return [self._flushing]

    def hold(self, task: Written, seconds: float) -> None:
        """Let the next entry wait that long for what else might join it."""
        self._held = asyncio.get_running_loop().call_later(seconds, self.release, task)

    def release(self, task: Written) -> None:
        """Write the next entry now, if it was held."""
        if self._held is not None:
            self.forget_hold()
            self.start(task)

    def forget_hold(self) -> None:
        """Hold nothing, and write nothing for that."""
        if self._held is not None:
            self._held.cancel()
            self._held = None

    def pause(self) -> None:
        """Leave a gap before the next entry, in which others may write: a fast stream could starve a cancel."""
        self._pausing = True

    async def _flush(self, task: Written) -> None:
        try:
            while self._pending and task.lost is None:
                if self._pausing:
                    self._pausing = False
                    await asyncio.sleep(GAP_SECONDS)
                stored = await self._write(task)
                if stored and self._pending.gathers:
                    self.hold(task, GATHER_SECONDS)
                    return
        except (TaskConflict, StoreUnavailable) as error:
            task.lose(error)
        except Exception:
            log.exception("task %s is stopped where it is", self._meta["task"])
            task.lose(TaskConflict(f"task {self._meta['task']} could not be stored; the agent's log says why"))
        finally:
            self._flushing = None
            task.flushed()

    async def _write(self, task: Written) -> bool:
        """Write the next entry; whether it is stored. If not, somebody else has written one, which is taken in."""
        count, records, acts = self._pending.next_entry()
        folded = self._folded
        outsider = self._is_outsider(task, records)
        entry = self._next.make(folded, records, self._clock(), outsider=outsider)
        published = self._journal.publishes
        try:
            append = self._next.append(folded, self._meta, entry, outsider=outsider, published=published)
            append.acts = acts
            await self._journal.append(append)
        except TaskConflict:
            await self._rebase(task)
            return False
        self._races = 0
        for act in acts:
            act.recorded = True
        self._pending.stored(count)
        task.take_in(entry, own=True)
        self._next.stored(folded)
        if outsider:
            await self._knock()
        self._pending.wake()
        return True

    def _is_outsider(self, task: Written, records: list[Record]) -> bool:
        """Whether another replica moves this task on, and goes on doing so."""
        folded = self._folded
        if folded.n == 0 or task.owned or has_lease(records):
            return False
        return folded.must_move and self._neighbours.alive(folded.owner_replica)

    async def _rebase(self, task: Written) -> None:
        """Somebody else has written this entry: fold it in and try again, unless the task is run elsewhere now."""
        folded = self._folded
        if folded.n == 0:
            raise TaskConflict(f"task {self._meta['task']} exists already")
        ran_here = task.owned and task.run is not None
        adopting = any(has_lease(append.records) for append in self._pending)
        take_in = partial(task.take_in, own=False)
        await patiently(partial(catch_up, self._journal.store, self._meta["task"], folded, take_in))
        if not task.owned and (ran_here or (adopting and self._neighbours.alive(folded.owner_replica))):
            raise run_elsewhere(self._meta["task"])
        task.rebase()
        self._pending.skip_dropped()
        self._races += 1
        if not task.owned and self._races >= FAIR_RACES:
            await self._knock()
            await asyncio.sleep(GAP_SECONDS / 2)

    async def _knock(self) -> None:
        await patiently(partial(self._neighbours.knock, self._folded.owner_replica, self._meta["task"]))


def run_elsewhere(task_id: str) -> TaskConflict:
    """Why this replica stops: another one has taken the task over."""
    return TaskConflict(f"task {task_id} is run by another replica now")
