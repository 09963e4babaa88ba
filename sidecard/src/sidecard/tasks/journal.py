"""Group commit: what a replica's tasks append while one write is in flight goes into the next one, together."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.index import Line, OwnerList, Todo, TodoChange
from sidecard.tasks.store import StateStore

log = logging.getLogger("sidecard.tasks")

MAX_BATCH_BYTES = 1_000_000
MAX_WAITING_BYTES = 32_000_000
MAX_WAITING_SECONDS = 5.0
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

T = TypeVar("T")
_Lists = dict[tuple[str, str], OwnerList]


@dataclass(slots=True, eq=False)
class Append:
    """One frozen log entry on its way to the store, with what must become true together with it.

    `hints` speak of earlier entries, whose commit is certain. `due` is its number if webhooks must be told.
    """

    key: str
    data: bytes
    task_id: str
    owner: tuple[str, str]
    line: Line | None
    listed: bool
    contested: bool
    hints: dict[str, bytes] = field(default_factory=dict)
    due: int = 0
    since: float = field(default_factory=time.monotonic)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True, eq=False)
class Told:
    """How far a task's webhooks have been told: all of them up to entry `through`, of the `known` ones; and cursors."""

    task_id: str
    through: int
    known: int
    cursors: dict[str, bytes]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Journal:
    """The one writer of a replica's logs, lists and to-do lists: `todo` to move on, `outbox` to tell webhooks of.

    A batch is one transaction. When the store refuses it, or its outcome is unknown, what is stored is read back: an
    entry that is there byte for byte is committed, one that is there otherwise has lost, and the rest is sent again
    unchanged. So an entry is in the log once or not at all, whatever the network did.
    """

    def __init__(self, store: StateStore, replica: str) -> None:
        self.store = store
        self.replica = replica
        self.todo = Todo(key=f"todo:{replica}")
        self.outbox = Todo(key=f"outbox:{replica}")
        self.writes = 0
        self.bytes_written = 0
        self._lists: _Lists = {}
        self._due: dict[str, int] = {}
        self._queue: list[Append] = []
        self._in_flight: Sequence[Append] = ()
        self._told: list[Told] = []
        self._telling: Sequence[Told] = ()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the to-do lists and start writing."""
        self.todo = await Todo.load(self.store, self.todo.key)
        self.outbox = await Todo.load(self.store, self.outbox.key)
        self._pump = asyncio.create_task(self._run(), name="journal")

    async def stop(self) -> None:
        """Stop writing. Whoever still waits learns that the outcome is not known."""
        if self._pump:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        waiting: list[Append | Told] = [*self._in_flight, *self._queue, *self._telling, *self._told]
        for write in waiting:
            if not write.done.done():
                write.done.set_exception(StoreUnavailable("this agent is stopping; send the same message again"))
                write.done.exception()  # nobody may be waiting any more

    def admit(self) -> None:
        """Raises StoreUnavailable when so much waits for the store that nothing more should be accepted."""
        oldest = next(iter(self._in_flight or self._queue), None)
        if oldest is None:
            return
        if time.monotonic() - oldest.since > MAX_WAITING_SECONDS or self._waiting_bytes > MAX_WAITING_BYTES:
            raise StoreUnavailable("the state store does not keep up or is down; nothing was accepted, try again later")

    async def list_of(self, tenant: str, owner: str) -> OwnerList:
        """The list of one owner's tasks, as last committed. Raises StoreUnavailable."""
        return await self._list_of(tenant, owner)

    async def _list_of(self, tenant: str, owner: str) -> OwnerList:
        if (tenant, owner) not in self._lists:
            loaded = await OwnerList.load(self.store, self.replica, tenant, owner)
            self._lists.setdefault((tenant, owner), loaded)
        return self._lists[tenant, owner]

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

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue or self._told:
                batch = self._in_flight = self._take()
                told = self._telling = self._told
                self._told = []
                try:
                    await self._commit(batch, told)
                except Exception:
                    log.exception("a batch of log entries could not be written")
                    _end(StoreUnavailable("this could not be stored; the agent's log says why"), *batch, *told)
                self._in_flight = self._telling = ()
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

    async def _commit(self, batch: list[Append], told: list[Told]) -> None:
        attempt = 0
        absent = batch
        while batch or told:
            lists, todo, outbox, upserts = await self._stage(batch, told)
            try:
                await self.store.write([(append.key, append.data) for append in absent], upserts)
                break
            except (TaskConflict, StoreUnavailable):
                stored = await patiently(partial(self.store.read, [append.key for append in batch])) if batch else {}
            lost = [append for append in batch if stored.get(append.key, append.data) != append.data]
            for append in lost:
                _end(TaskConflict(f"{append.key} was written by somebody else"), append)
            batch = [append for append in batch if stored.get(append.key, append.data) == append.data]
            # When only the answer was lost nothing is absent; the lists are written once more, to be sure of them too.
            absent = [append for append in batch if append.key not in stored]
            if not lost and (absent or not batch):
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
        if not batch and not told:
            return
        self._lists.update(lists)
        self.todo.settle(todo)
        self.outbox.settle(outbox)
        for one in told:
            if not self._owes(one):
                self._due.pop(one.task_id, None)
        self.writes += 1
        self.bytes_written += sum(len(append.data) for append in batch) + sum(map(len, upserts.values()))
        _end(None, *batch, *told)

    async def _stage(
        self, batch: list[Append], told: list[Told]
    ) -> tuple[_Lists, TodoChange, TodoChange, dict[str, bytes]]:
        upserts = {key: hint for append in batch for key, hint in append.hints.items()}
        upserts |= {key: cursor for one in told for key, cursor in one.cursors.items()}
        lists: _Lists = {}
        lines: dict[tuple[str, str], list[Line]] = {}
        for append in batch:
            if append.line:
                lines.setdefault(append.owner, []).append(append.line)
        for owner, changed in lines.items():
            lists[owner], writes = (await patiently(partial(self._list_of, *owner))).stage(changed)
            upserts |= writes
        todo = self.todo.stage({append.task_id: append.listed for append in batch})
        due = {append.task_id: True for append in batch if append.due}
        outbox = self.outbox.stage(due | {one.task_id: self._owes(one) for one in told})
        return lists, todo, outbox, upserts | todo.writes | outbox.writes

    def _owes(self, told: Told) -> bool:
        return max(told.known, self._due.get(told.task_id, 0)) > told.through


async def patiently(read: Callable[[], Awaitable[T]]) -> T:
    """What `read` gives, tried until the store answers."""
    for delay in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
        try:
            return await read()
        except StoreUnavailable:
            await asyncio.sleep(delay)
    raise AssertionError


def _end(error: TaskConflict | StoreUnavailable | None, *writes: Append | Told) -> None:
    for write in writes:
        if write.done.done():
            continue
        if error is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(error)
