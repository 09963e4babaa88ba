"""The tasks in this replica's memory: each is there once, for as long as it is used."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.entry import Record, log_key
from sidecard.tasks.joined import Joined
from sidecard.tasks.journal import Journal
from sidecard.tasks.live import Live
from sidecard.tasks.loading import load
from sidecard.tasks.state import FoldedTask
from sidecard.tasks.writer import Neighbours

LINGER_SECONDS = 0.05
"""How long a task whose reader went away stays for other readers."""


OnStored = Callable[[Live, int, list[Record], bool], None]


class Others(Neighbours, Protocol):
    """The other replicas, as they see this one."""

    def steady(self) -> bool:
        """Whether none of them can have taken this one for dead."""


class Lives:
    """Loads tasks on demand, one `Live` per task, and forgets those that nobody and nothing needs."""

    def __init__(self, journal: Journal, others: Others, clock: Callable[[], int], on_stored: OnStored) -> None:
        """`on_stored` is told of each stored entry: the task, its state before, the records, and whether it is own."""
        self._journal = journal
        self._reads = Joined(journal.store)
        self._others = others
        self._clock = clock
        self._on_stored = on_stored
        self._lives: dict[str, Live] = {}
        self._loading: dict[str, asyncio.Task[bool]] = {}

    def __len__(self) -> int:
        return len(self._lives)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._lives

    def get(self, task_id: str) -> Live | None:
        """What memory has of a task now."""
        return self._lives.get(task_id)

    def values(self) -> list[Live]:
        """All that are in memory now."""
        return list(self._lives.values())

    def begin(self, meta: dict[str, str]) -> Live:
        """A task that has no entry yet. Its id must not be in memory."""
        return self._keep(FoldedTask(), meta)

    async def find(self, task_id: str) -> Live | None:
        """What memory has of a task once nobody is reading it from the store; it may not be stored yet."""
        while task_id in self._loading:
            await self._load(task_id)
        return self._lives.get(task_id)

    @contextlib.contextmanager
    def using(self, live: Live) -> Iterator[Live]:
        """Keep a task in memory."""
        live.users += 1
        try:
            yield live
        finally:
            live.users -= 1
            self.let_go(live)

    @contextlib.asynccontextmanager
    async def borrow(self, task_id: str) -> AsyncIterator[Live | None]:
        """The stored task, kept in memory as long as it is used; None where there is none.

        Raises LogBroken, StoreUnavailable.
        """
        while True:
            live = self._lives.get(task_id)
            if live is None:
                if not await self._load(task_id):
                    yield None
                    return
            elif live.folded.n:
                if self._is_current(live):
                    break
                with self.using(live):
                    await self._refresh(live)
                if live.lost is None:
                    break
            else:  # it is being created, or was created before and will turn out to be that
                with self.using(live), contextlib.suppress(TaskConflict):
                    await live.commit(hurry=False)
        with self.using(live):
            yield live

    def _is_current(self, live: Live) -> bool:
        """Whether nobody else can have written to a task that memory does not know of.

        A replica that was frozen may no longer own what it thinks it does, and would show callers the past. So would
        one whose entry is stored and which has not heard of that, while another replica shows it already.
        """
        return not self._journal.store.shared or (live.owned and not live.writing and self._others.steady())

    async def _refresh(self, live: Live) -> None:
        """Let a task take in all that others have written meanwhile. Raises StoreUnavailable."""
        while live.lost is None:
            if live.writing:  # when that is stored nobody else has written before it
                with contextlib.suppress(TaskConflict):
                    await live.commit()
                return
            key = log_key(live.task_id, live.folded.n + 1)
            data = (await self._reads.read([key])).get(key)
            if data is None:
                return
            if key == log_key(live.task_id, live.folded.n + 1) and not live.writing:
                live.hear(data)

    async def close(self) -> None:
        """Forget all tasks."""
        await asyncio.gather(*(live.close() for live in self.values()))
        for loading in list(self._loading.values()):
            loading.cancel()

    def stored(self, live: Live, before: int, records: list[Record], *, own: bool) -> None:
        """See live.Keeper."""
        self._on_stored(live, before, records, own)

    def alive(self, replica: str) -> bool:
        """See writer.Neighbours."""
        return self._others.alive(replica)

    async def knock(self, replica: str, task_id: str) -> None:
        """See writer.Neighbours."""
        await self._others.knock(replica, task_id)

    def let_go(self, live: Live) -> None:
        """See live.Keeper. It goes in a moment: who has just made a task reads it next."""
        if live.lost is not None:
            self._forget(live)
        elif not live.busy:
            asyncio.get_running_loop().call_soon(self._forget, live)

    def _forget(self, live: Live) -> None:
        """A task that is being read is kept, so that the reader ends up with what is in memory."""
        unneeded = live.lost is not None or not (live.busy or live.task_id in self._loading)
        if unneeded and self._lives.get(live.task_id) is live:
            del self._lives[live.task_id]

    async def _load(self, task_id: str) -> bool:
        """Bring a task into memory; False where there is none. Readers of one task share one look into the store."""
        loading = self._loading.get(task_id)
        if loading is None:
            loading = self._loading[task_id] = asyncio.create_task(self._read(task_id), name=f"load {task_id}")
            loading.add_done_callback(lambda done: done.cancelled() or done.exception())  # its readers may be gone
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            reader = asyncio.current_task()
            if loading.cancelled() and not (reader and reader.cancelling()):
                raise StoreUnavailable("this agent is stopping or starting; try again") from None
            # Maybe nobody wants it any more.
            later = asyncio.get_running_loop().call_later
            loading.add_done_callback(lambda _: later(LINGER_SECONDS, self._unwanted, task_id))
            raise

    async def _read(self, task_id: str) -> bool:
        try:
            folded = await load(self._reads, task_id)
            if folded is not None and task_id not in self._lives:
                self._keep(folded, folded.meta)
        finally:
            del self._loading[task_id]
        return folded is not None

    def _keep(self, folded: FoldedTask, meta: dict[str, str]) -> Live:
        live = Live(self._journal, self, folded, meta, replica=self._journal.replica, clock=self._clock)
        self._lives[live.task_id] = live
        return live

    def _unwanted(self, task_id: str) -> None:
        if live := self._lives.get(task_id):
            self.let_go(live)
