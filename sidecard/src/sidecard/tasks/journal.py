"""Group commit: what a replica's tasks append while one write is in flight goes into the next one, together."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.index import Line, Owner
from sidecard.tasks.mail import mark
from sidecard.tasks.slot_entry import slot_key
from sidecard.tasks.slots import Slot, Staged, Sweep
from sidecard.tasks.store import StateStore

log = logging.getLogger("sidecard.tasks")

MAX_BATCH_BYTES = 1_000_000
MAX_WAITING_BYTES = 32_000_000
MAX_WAITING_SECONDS = 5.0
INDEX_HEAD_COLONS = 2
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

T = TypeVar("T")


class Deposed(TaskConflict):
    """Somebody has taken this replica's slot over, taking it for dead."""


@dataclass(slots=True, eq=False)
class Append:
    """One frozen log entry on its way to the store, with what must become true together with it.

    `listed` says whether the task belongs on this replica's to-do list, None where that is another's business; `due` is
    its number if webhooks must be told of it; `hints` speak of earlier entries, whose commit is certain.
    """

    key: str
    data: bytes
    task_id: str
    owner: Owner
    line: Line | None
    listed: bool | None
    contested: bool
    due: int = 0
    hints: dict[str, bytes] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


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


@dataclass(slots=True, eq=False)
class _Sweeping:
    """A sweep on its way to the store, and the lines that take what it expires out of the counts."""

    sweep: Sweep
    lines: Mapping[Owner, list[Line]]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Journal:
    """The one writer of a replica's logs and slot.

    A batch is one transaction: task entries and the slot's next entry, which lists them. When the store refuses it, or
    its outcome is unknown, what is stored is read back: with the slot's entry everything is committed, a task entry
    that is there otherwise has lost, and the rest is sent again. So an entry is in its log, and listed, once or not at
    all, whatever the network did. `deposed` is told when somebody else holds the slot now.
    """

    def __init__(
        self,
        store: StateStore,
        deposed: Callable[[], None] = lambda: None,
        unquestioned: Callable[[float], bool] = lambda _: False,
    ) -> None:
        """`unquestioned` tells whether nobody can have taken this replica for dead since a moment (time.monotonic)."""
        self.store = store
        self.writes = 0
        self.bytes_written = 0
        self.publishes = False
        """Whether every event of every task is due to somebody, webhooks or not."""
        self._slot: Slot | None = None
        self._deposed = deposed
        self._unquestioned = unquestioned
        self._due: dict[str, int] = {}
        self._told: list[Told] = []
        self._telling: Sequence[Told] = ()
        self._sweeps: list[_Sweeping] = []
        self._sweeping: _Sweeping | None = None
        self._queue: list[Append] = []
        self._in_flight: Sequence[Append] = ()
        self._waiting_bytes = 0
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
        self._slot = slot
        self._pump = asyncio.create_task(self._run(slot), name="journal")

    async def stop(self) -> None:
        """Stop writing. Whoever still waits learns that the outcome is not known."""
        if self._pump:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        self._give_up("this agent is stopping; send the same message again")

    def _give_up(self, why: str) -> None:
        sweeps = [*self._sweeps, *([self._sweeping] if self._sweeping else [])]
        waiting: list[Append | Told | _Sweeping] = [
            *self._in_flight,
            *self._queue,
            *self._telling,
            *self._told,
            *sweeps,
        ]
        for write in waiting:
            if not write.done.done():
                write.done.set_exception(StoreUnavailable(why))
                write.done.exception()  # nobody may be waiting any more
        self._queue, self._in_flight, self._waiting_bytes = [], (), 0
        self._told, self._telling = [], ()
        self._sweeps, self._sweeping = [], None

    def admit(self) -> None:
        """Raises StoreUnavailable when so much waits for the store that nothing more should be accepted."""
        oldest = next(iter(self._in_flight or self._queue), None)
        if oldest is None:
            return
        if time.monotonic() - oldest.since > MAX_WAITING_SECONDS or self._waiting_bytes > MAX_WAITING_BYTES:
            raise StoreUnavailable("the state store does not keep up or is down; nothing was accepted, try again later")

    def append(self, append: Append) -> asyncio.Future[None]:
        """Put an entry into the next batch. The future ends when it is stored, with TaskConflict when it lost."""
        if append.due:
            self._due[append.task_id] = append.due  # from now on, so that no Told that passes it takes the task off
        self._queue.append(append)
        self._waiting_bytes += len(append.data)
        self._wake.set()
        return append.done

    def told(self, told: Told) -> asyncio.Future[None]:
        """Put cursors into the next batch. The task leaves the outbox when its webhooks are told of all entries."""
        self._told.append(told)
        self._wake.set()
        return told.done

    async def sweep(self, sweep: Sweep, lines: Mapping[Owner, list[Line]] | None = None) -> None:
        """Write this into this replica's slot with the next batch; `lines` take what expires out of the counts.

        Raises StoreUnavailable when the outcome is not known, since this replica stops or is deposed.
        """
        sweeping = _Sweeping(sweep, lines or {})
        self._sweeps.append(sweeping)
        self._wake.set()
        await sweeping.done

    async def _run(self, slot: Slot) -> None:
        holder = slot.holder
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._told or self._sweeps:
                try:
                    await self._write_batch(slot)
                    if slot.holder != holder:
                        raise Deposed(f"slot {slot.number} is held by {slot.holder}")
                except Deposed as error:
                    log.warning("replica %s was taken for dead and goes on as another: %s", holder, error)
                    self._give_up("this replica was taken for dead; send the same message again")
                    self._deposed()
                    return

    async def _write_batch(self, slot: Slot) -> None:
        batch = self._in_flight = self._take()
        told = self._telling = self._told
        self._told = []
        sweep = self._sweeping = self._sweeps.pop(0) if self._sweeps else None
        try:
            await self._commit(slot, batch, told, sweep)
        except Deposed:
            raise
        except Exception:
            log.exception("a batch of log entries could not be written")
            _end(
                StoreUnavailable("this could not be stored; the agent's log says why"),
                *batch,
                *told,
                *([sweep] if sweep else []),
            )
            await patiently(slot.catch_up)  # some of it may be stored
        self._in_flight, self._telling, self._sweeping = (), (), None
        self._waiting_bytes -= sum(len(append.data) for append in batch)

    def _take(self) -> list[Append]:
        """The next batch: contested entries never share one with uncontested ones, so that no storm rejects others."""
        contested = bool(self._queue) and self._queue[0].contested
        batch: list[Append] = []
        rest: list[Append] = []
        size = 0
        for append in self._queue:
            if append.contested == contested and (not batch or size + len(append.data) <= MAX_BATCH_BYTES):
                batch.append(append)
                size += len(append.data)
            else:
                rest.append(append)
        self._queue = rest
        return batch

    async def _commit(self, slot: Slot, batch: list[Append], told: list[Told], sweep: _Sweeping | None) -> None:
        if self.store.atomic:
            await self._commit_together(slot, batch, told, sweep)
        else:
            await self._commit_one_by_one(slot, batch, told, sweep)
        for one in told:
            if not self._owes(one):
                self._due.pop(one.task_id, None)
        _end(None, *told, *([sweep] if sweep else []))

    async def _commit_together(
        self, slot: Slot, batch: list[Append], told: list[Told], sweep: _Sweeping | None
    ) -> None:
        """One transaction; when somebody has taken a key of it, one without that key."""
        attempt = 0
        while batch or told or sweep:
            staged = await patiently(partial(self._stage, slot, batch, told, sweep))
            creates = [(append.key, append.data) for append in batch]
            upserts = _hints(batch, told) | staged.upserts
            lost: list[Append] = []
            while not lost:
                if await self._create(staged, creates, upserts, staged.deletes):
                    self._settle(slot, staged, creates, upserts)
                    _end(None, *batch)
                    return
                stored = await patiently(partial(self.store.read, [append.key for append in batch])) if batch else {}
                lost = [append for append in batch if append.key in stored]
                if not lost:  # refused for no reason, or not reached
                    await _pause(attempt)
                    attempt += 1
            batch = self._without(batch, lost)

    async def _commit_one_by_one(
        self, slot: Slot, batch: list[Append], told: list[Told], sweep: _Sweeping | None
    ) -> None:
        """For a store that decides key by key: the slot's entry announces the batch, then each task entry is tried.

        So everything that is stored is listed. What lost is taken back by a further entry; when this process dies in
        between, whoever takes the slot over does so.
        """
        before = {append.task_id: append.task_id in slot.todo.all for append in batch if append.listed is not None}
        due = {append.task_id: append.task_id in slot.outbox.all for append in batch if append.due}
        began = time.monotonic()
        await self._announce(slot, await patiently(partial(self._stage, slot, batch, told, sweep)), _hints(batch, told))
        won = await self._decide_each(batch)
        if not self._unquestioned(began):
            await self._check_holder(slot)
        if lost := [append for append in batch if append not in won]:
            lines: dict[Owner, list[Line]] = {}
            for append in lost:
                if append.line:
                    lines.setdefault(append.owner, []).append(append.line.undone())
            todo = {append.task_id: before[append.task_id] for append in lost if append.listed is not None}
            due = {append.task_id: due[append.task_id] for append in lost if append.due}
            amended = await patiently(partial(slot.stage, lines, todo, due, holder=slot.holder))
            await self._announce(slot, amended, {})
        _end(None, *won)

    async def _stage(self, slot: Slot, batch: list[Append], told: list[Told], sweep: _Sweeping | None) -> Staged:
        lines = {owner: list(more) for owner, more in sweep.lines.items()} if sweep else {}
        for append in batch:
            if append.line:
                lines.setdefault(append.owner, []).append(append.line)
        todo = {append.task_id: append.listed for append in batch if append.listed is not None}
        due = {append.task_id: True for append in batch if append.due}
        due |= {one.task_id: self._owes(one) for one in told} | {mark(one.task_id): one.dead for one in told}
        staged = await slot.stage(lines, todo, due, sweep=sweep.sweep if sweep else None)
        cursors = {key: cursor for one in told for key, cursor in one.cursors.items()}  # the last word on each counts
        staged.deletes += [key for key, cursor in cursors.items() if cursor is None]
        return staged

    def _owes(self, told: Told) -> bool:
        return max(told.known, self._due.get(told.task_id, 0)) > told.through

    async def _announce(self, slot: Slot, staged: Staged, hints: dict[str, bytes]) -> None:
        attempt = 0
        while not await self._create(staged, [], {}, ()):
            await _pause(attempt)
            attempt += 1
        upserts = hints | staged.upserts
        for rank in range(3):
            if some := {key: value for key, value in upserts.items() if _rank(key) == rank}:
                await self._insist(some)
        if staged.deletes:
            await self._insist({}, staged.deletes)
        self._settle(slot, staged, [], upserts)

    async def _insist(self, upserts: Mapping[str, bytes], deletes: Sequence[str] = ()) -> None:
        """Write what nobody else writes, until it is written."""
        for attempt in itertools.count():
            try:
                await self.store.write([], upserts, deletes)
            except (TaskConflict, StoreUnavailable):
                await _pause(attempt)
            else:
                return

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

    async def _decide_each(self, batch: list[Append]) -> list[Append]:
        """Create task entries, each for itself; returns those that have won."""
        attempt = 0
        absent = batch
        while absent:
            with contextlib.suppress(TaskConflict, StoreUnavailable):
                await self.store.write([(append.key, append.data) for append in absent], {})
                break
            stored = await patiently(partial(self.store.read, [append.key for append in batch]))
            batch = self._without(batch, [a for a in batch if stored.get(a.key, a.data) != a.data])
            absent = [append for append in batch if append.key not in stored]
            if absent:
                await _pause(attempt)
                attempt += 1
        self.bytes_written += sum(len(append.data) for append in batch)
        return batch

    def _without(self, batch: list[Append], lost: list[Append]) -> list[Append]:
        """The batch without those who have lost, who learn that. Nothing of theirs is due: it was never stored."""
        for append in lost:
            if append.due and self._due.get(append.task_id) == append.due:
                del self._due[append.task_id]
            _end(TaskConflict(f"{append.key} was written by somebody else"), append)
        return [append for append in batch if append not in lost]

    async def _check_holder(self, slot: Slot) -> None:
        """Raises Deposed when somebody has taken the slot: what was stored since is on nobody's list.

        Who takes a slot looks afterwards what its last entry announced came true. So what is stored before this finds
        nobody there is listed, and may be acknowledged.
        """
        key = slot_key(slot.number, slot.n + 1)
        if key in await patiently(partial(self.store.read, [key])):
            raise Deposed(f"{key} was written by somebody else")

    def _settle(
        self, slot: Slot, staged: Staged, creates: list[tuple[str, bytes]], upserts: Mapping[str, bytes]
    ) -> None:
        slot.settle(staged)
        self.writes += 1
        self.bytes_written += sum(map(len, (staged.data, *dict(creates).values(), *upserts.values())))


def _hints(batch: list[Append], told: list[Told]) -> dict[str, bytes]:
    hints = {key: hint for append in batch for key, hint in append.hints.items()}
    cursors = {key: cursor for one in told for key, cursor in one.cursors.items()}
    return hints | {key: cursor for key, cursor in cursors.items() if cursor is not None}


def _rank(key: str) -> int:
    """Which of the keys that are overwritten must be written first: pages, heads of lists, head of the slot."""
    kind, colons = key.partition(":")[0], key.count(":")
    return 2 if kind == "slot" else 1 if kind == "index" and colons == INDEX_HEAD_COLONS else 0


async def _pause(attempt: int) -> None:
    await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What the store answers, asked until it does."""
    for delay in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(delay)
    raise AssertionError


def _end(error: TaskConflict | StoreUnavailable | None, *writes: Append | Told | _Sweeping) -> None:
    for write in writes:
        if write.done.done():
            continue
        if error is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(error)
