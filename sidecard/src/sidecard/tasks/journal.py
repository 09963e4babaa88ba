"""Group commit: what a replica's tasks append while one write is in flight goes into the next one, together."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.index import Line, OwnerList, Todo
from sidecard.tasks.store import StateStore

MAX_BATCH_BYTES = 1_000_000
MAX_WAITING_BYTES = 32_000_000
MAX_WAITING_SECONDS = 5.0
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Append:
    """One frozen log entry on its way to the store, with what must become true together with it."""

    key: str
    data: bytes
    task_id: str
    owner: tuple[str, str]
    line: Line | None
    listed: bool
    contested: bool
    since: float = field(default_factory=time.monotonic)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Journal:
    """The one writer of a replica's logs, lists and to-do list.

    A batch is one transaction. When the store refuses it, or its outcome is unknown, what is stored is read back: an
    entry that is there byte for byte is committed, one that is there otherwise has lost, and the rest is sent again
    unchanged. So an entry is in the log once or not at all, whatever the network did.
    """

    def __init__(self, store: StateStore, replica: str) -> None:
        self.store = store
        self.replica = replica
        self.todo = Todo(key=f"todo:{replica}")
        self.writes = 0
        self.bytes_written = 0
        self._lists: dict[tuple[str, str], OwnerList] = {}
        self._queue: list[Append] = []
        self._in_flight: Sequence[Append] = ()
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the to-do list and start writing."""
        self.todo = await Todo.load(self.store, self.replica)
        self._pump = asyncio.create_task(self._run(), name="journal")

    async def stop(self) -> None:
        """Stop writing. Whoever still waits learns that the outcome is not known."""
        if self._pump:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        for append in (*self._in_flight, *self._queue):
            if not append.done.done():
                append.done.set_exception(StoreUnavailable("this agent is stopping; send the same message again"))
                append.done.exception()  # nobody may be waiting any more

    def admit(self) -> None:
        """Raises StoreUnavailable when so much waits for the store that nothing more should be accepted."""
        waiting = (*self._in_flight, *self._queue)
        if not waiting:
            return
        if time.monotonic() - waiting[0].since > MAX_WAITING_SECONDS or sum(len(a.data) for a in waiting) > MAX_WAITING_BYTES:
            raise StoreUnavailable("the state store does not keep up or is down; nothing was accepted, try again later")

    async def list_of(self, tenant: str, owner: str) -> OwnerList:
        """The list of one owner's tasks, as last committed."""
        if (tenant, owner) not in self._lists:
            loaded = await OwnerList.load(self.store, self.replica, tenant, owner)
            self._lists.setdefault((tenant, owner), loaded)
        return self._lists[tenant, owner]

    def append(self, append: Append) -> asyncio.Future[None]:
        """Put an entry into the next batch. The future ends when it is stored, or with TaskConflict when it has lost."""
        self._queue.append(append)
        self._wake.set()
        return append.done

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = self._take()
                self._in_flight = batch
                await self._commit(batch)
                self._in_flight = ()

    def _take(self) -> list[Append]:
        """The next batch: contested entries never share one with uncontested ones, so that no storm rejects others."""
        contested = self._queue[0].contested
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

    async def _commit(self, batch: list[Append]) -> None:
        attempt = 0
        absent = list(batch)
        while batch:
            lists, todo, upserts = await self._stage(batch)
            try:
                await self.store.write([(append.key, append.data) for append in absent], upserts)
            except (TaskConflict, StoreUnavailable):
                stored = await self._read_back([append.key for append in batch])
                lost = [append for append in batch if stored.get(append.key, append.data) != append.data]
                for append in lost:
                    _end(append, TaskConflict(f"{append.key} was written by somebody else"))
                batch = [append for append in batch if append not in lost]
                absent = [append for append in batch if append.key not in stored]
                if batch and not absent:
                    break  # the write's answer was lost, not the write
                if not lost:
                    await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                    attempt += 1
                continue
            break
        if not batch:
            return
        self._lists.update(lists)
        self.todo = todo
        self.writes += 1
        self.bytes_written += sum(len(append.data) for append in batch) + sum(map(len, upserts.values()))
        for append in batch:
            _end(append, None)

    async def _stage(self, batch: list[Append]) -> tuple[dict[tuple[str, str], OwnerList], Todo, dict[str, bytes]]:
        upserts: dict[str, bytes] = {}
        lists: dict[tuple[str, str], OwnerList] = {}
        for owner in {append.owner for append in batch if append.line}:
            lines = [append.line for append in batch if append.line and append.owner == owner]
            lists[owner], writes = (await self._patiently_list(owner)).stage(lines)
            upserts |= writes
        todo, writes = self.todo.stage({append.task_id: append.listed for append in batch})
        return lists, todo, upserts | writes

    async def _patiently_list(self, owner: tuple[str, str]) -> OwnerList:
        while True:
            try:
                return await self.list_of(*owner)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS[-1])

    async def _read_back(self, keys: list[str]) -> dict[str, bytes]:
        for delay in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
            try:
                return await self.store.read(keys)
            except StoreUnavailable:
                await asyncio.sleep(delay)
        raise AssertionError


def _end(append: Append, error: TaskConflict | None) -> None:
    if append.done.done():
        return
    if error is None:
        append.done.set_result(None)
    else:
        append.done.set_exception(error)
