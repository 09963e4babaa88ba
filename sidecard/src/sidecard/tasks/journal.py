"""Group commit: what a replica's tasks append while one write is in flight goes into the next one, together."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from sidecard.errors import StoreUnavailable
from sidecard.tasks.act import Act
from sidecard.tasks.announcements import Announcements
from sidecard.tasks.batch import Append, Batch, Sweeping, end
from sidecard.tasks.commits import Commits, Deposed
from sidecard.tasks.index import Line, Owner
from sidecard.tasks.patience import patiently
from sidecard.tasks.sightings import FLUSH_SECONDS, Sightings
from sidecard.tasks.slots import Slot, Sweep
from sidecard.tasks.store import StateStore
from sidecard.tasks.told import Due, Told
from sidecard.tasks.transactions import Transactions

log = logging.getLogger("sidecard.tasks")

MAX_BATCH_BYTES = 1_000_000
MAX_WAITING_BYTES = 32_000_000
MAX_WAITING_SECONDS = 5.0
RECORD_SECONDS = 20.0
"""How long somebody waits for an act to be stored before they may have what they asked for."""


class Journal:
    """The one writer of a replica's logs and slot.

    A batch is one transaction, where the store has any: task entries and the slot's next entry, which lists them. When
    the store refuses it, or its outcome is unknown, what is stored is read back: with the slot's entry everything is
    committed, a task entry that is there otherwise has lost, and the rest is sent again. So an entry is in its log, and
    listed, once or not at all, whatever the network did. `deposed` is told when somebody else holds the slot now.

    What a batch changes is in the audit by the same write. Acts that change nothing go with the next one, or soon.
    """

    def __init__(
        self,
        store: StateStore,
        deposed: Callable[[], None] = lambda: None,
        unquestioned: Callable[[float], bool] = lambda _: False,
    ) -> None:
        """`unquestioned` tells whether nobody can have taken this replica for dead since a moment (time.monotonic)."""
        self.store = store
        self.late: Sequence[Append] = ()
        """What it was writing when it was stopped, and may be stored though nobody lists it; see late.py."""
        self.publishes = False
        """Whether every event of every task is due to somebody, webhooks or not."""
        self._slot: Slot | None = None
        self._deposed = deposed
        self._unquestioned = unquestioned
        self._due = Due()
        self._queue: list[Append] = []
        self._told: list[Told] = []
        self._sweeps: list[Sweeping] = []
        self._sightings = Sightings()
        self._in_flight = Batch()
        self._waiting_bytes = 0
        self._flushing: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._written = asyncio.Event()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    @property
    def slot(self) -> Slot:
        """Where this replica writes; from `start` on."""
        if self._slot is None:
            raise StoreUnavailable("this agent is starting")
        return self._slot

    @property
    def replica(self) -> str:
        """Who writes here."""
        return self.slot.holder

    def start(self, slot: Slot) -> None:
        """Write to this slot from now on."""
        self._slot, self.late = slot, ()
        if self.store.atomic:
            commits: Commits = Transactions(self.store, slot, self._due)
        else:
            commits = Announcements(self.store, slot, self._due, self._unquestioned)
        self._pump = asyncio.create_task(self._run(slot, commits), name="journal")

    async def flush(self, seconds: float) -> None:
        """Write what the audit still waits for, within that time."""
        await self._until(lambda: not (self._sightings or self._in_flight.acts), seconds)

    async def _until(self, written: Callable[[], bool], seconds: float) -> None:
        """Write acts, one batch after the other, until these are `written`, within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._pump is not None and not self._pump.done() and not written():
                    self._written.clear()
                    self._flush()
                    await self._written.wait()

    async def stop(self) -> None:
        """Stop writing. Whoever still waits learns that the outcome is not known."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._pump:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        self._give_up("this agent is stopping; send the same message again")

    def _give_up(self, why: str) -> None:
        batch = self._in_flight
        if not self.store.atomic:
            self.late = [*self.late, *batch.appends]
        for write in (*batch.appends, *batch.others, *self._queue, *self._told, *self._sweeps):
            if not write.done.done():
                write.done.set_exception(StoreUnavailable(why))
                write.done.exception()  # nobody may be waiting any more
        self._sightings.put_back(batch.acts)
        self._queue, self._told, self._sweeps = [], [], []
        self._in_flight, self._waiting_bytes = Batch(), 0
        self._written.set()  # whoever waits for it looks again

    def admit(self) -> None:
        """Raises StoreUnavailable when so much waits for the store that nothing more should be accepted."""
        oldest = next(iter(self._in_flight.appends or self._queue), None)
        if oldest is None:
            return
        if time.monotonic() - oldest.since > MAX_WAITING_SECONDS or self._waiting_bytes > MAX_WAITING_BYTES:
            raise StoreUnavailable("the state store does not keep up or is down; nothing was accepted, try again later")

    def append(self, append: Append) -> asyncio.Future[None]:
        """Put an entry into the next batch. The future ends when it is stored, with TaskConflict when it lost."""
        if append.due:
            self._due.add(append.task_id, append.n)
        self._queue.append(append)
        self._waiting_bytes += len(append.data)
        self._wake.set()
        return append.done

    def told(self, told: Told) -> asyncio.Future[None]:
        """Put cursors into the next batch. The task leaves the outbox when its webhooks are told of all entries."""
        self._told.append(told)
        self._wake.set()
        return told.done

    def saw(self, act: Act) -> None:
        """Put an act that changes nothing into a batch to come, within a second or so.

        Raises StoreUnavailable when the store has been down for so long that no more of those that were allowed wait.
        """
        self._sightings.add(act)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    async def record(self, act: Act) -> None:
        """Put an act that changes nothing into the next batch, and return once it is stored.

        Raises StoreUnavailable when that takes too long, or this agent stops: it may be stored all the same.
        """
        self.saw(act)
        kind = act.kind()

        def written() -> bool:
            return act not in self._sightings and all(one.kind() != kind for one in self._in_flight.acts)

        await self._until(written, RECORD_SECONDS)
        if not written():
            raise StoreUnavailable("the audit can't be written, as the state store is down; try again later")
        act.recorded = True

    def _flush(self) -> None:
        self._flushing = None
        self._flush_due = bool(self._sightings)
        self._wake.set()

    async def sweep(self, sweep: Sweep, lines: Mapping[Owner, list[Line]] | None = None) -> None:
        """Write this into this replica's slot with the next batch; `lines` take what expires out of the counts.

        Raises StoreUnavailable when the outcome is not known, since this replica stops or is deposed.
        """
        sweeping = Sweeping(sweep, lines or {})
        self._sweeps.append(sweeping)
        self._wake.set()
        await sweeping.done

    async def _run(self, slot: Slot, commits: Commits) -> None:
        holder = slot.holder
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._told or self._sweeps or self._flush_due:
                try:
                    await self._write(self._take(), slot, commits)
                    if slot.holder != holder:
                        raise Deposed(f"slot {slot.number} is held by {slot.holder}")
                except Deposed as error:
                    log.warning("replica %s was taken for dead and goes on as another: %s", holder, error)
                    self._give_up("this replica was taken for dead; send the same message again")
                    self._deposed()
                    return

    async def _write(self, batch: Batch, slot: Slot, commits: Commits) -> None:
        self._in_flight = batch
        try:
            await commits.commit(batch)
        except Deposed:
            raise
        except Exception:
            log.exception("a batch of log entries could not be written")
            end(StoreUnavailable("this could not be stored; the agent's log says why"), *batch.appends, *batch.others)
            self._sightings.put_back(batch.acts)
            await patiently(slot.catch_up)  # some of it may be stored
        self._in_flight = Batch()
        self._written.set()
        self._waiting_bytes -= batch.size

    def _take(self) -> Batch:
        """The next batch: contested entries never share one with uncontested ones, so that no storm rejects others."""
        contested = bool(self._queue) and self._queue[0].contested
        appends: list[Append] = []
        rest: list[Append] = []
        size = 0
        for append in self._queue:
            if append.contested == contested and (not appends or size + len(append.data) <= MAX_BATCH_BYTES):
                appends.append(append)
                size += len(append.data)
            else:
                rest.append(append)
        told, self._queue, self._told = self._told, rest, []
        acts = self._sightings.take() if self._sightings else ()
        self._flush_due = bool(self._sightings)  # more than one write takes
        return Batch(appends, told, self._sweeps.pop(0) if self._sweeps else None, acts)
