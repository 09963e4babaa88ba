"""One task in this replica's memory: what it has yet to commit, who follows it, and its run."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from a2a.types import Artifact, TaskArtifactUpdateEvent, TaskStatusUpdateEvent
from a2a.types import Task as A2ATask

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.entry import Entry, Record, head_key, log_key
from sidecard.tasks.index import Line
from sidecard.tasks.journal import Append, Journal
from sidecard.tasks.state import INTERRUPTED, TERMINAL, FoldedTask, Question, Step, status_of

if TYPE_CHECKING:
    from sidecard.tasks.run import Run

Event = A2ATask | TaskStatusUpdateEvent | TaskArtifactUpdateEvent
SNAPSHOT_EVERY = 256
FOLLOWER_EVENTS = 2_000
"""Events that may wait for a slow reader before it is cut; it can subscribe again."""
ACKNOWLEDGE_SECONDS = 20.0
READ_AHEAD = 32


class TaskEnded(TaskConflict):
    """The task has reached a terminal state; nothing more can be appended."""


async def load(journal: Journal, task_id: str) -> FoldedTask | None:
    """Fold a task from its log, or None where there is none. Raises LogBroken, StoreUnavailable."""
    head = (await journal.store.read([head_key(task_id)])).get(head_key(task_id))
    folded = FoldedTask()
    if head:
        snapshot_at = int(head.decode())
        stored = await journal.store.read([log_key(task_id, snapshot_at)])
        if data := stored.get(log_key(task_id, snapshot_at)):
            entry = Entry.unpack(data)
            folded = FoldedTask.restore(next(record[1] for record in entry.records if record[0] == "snapshot"))
            folded.apply(entry)
    await catch_up(journal, task_id, folded)
    return folded if folded.n else None


async def catch_up(journal: Journal, task_id: str, folded: FoldedTask) -> None:
    """Fold all entries after `folded.n`."""
    ahead = 4
    while True:
        keys = [log_key(task_id, folded.n + i) for i in range(1, ahead + 1)]
        stored = await journal.store.read(keys)
        for key in keys:
            if key not in stored:
                return
            folded.apply(Entry.unpack(stored[key]))
        ahead = min(ahead * 2, READ_AHEAD)


class Live:
    """Serialises the appends of one task: at most one entry in flight, each record in exactly one entry.

    What is appended takes part in decisions at once (`state`, `ended`), and leaves this process only when committed.
    """

    def __init__(self, journal: Journal, replica: str, folded: FoldedTask, meta: dict[str, str]) -> None:
        """`meta` is the "new" record's, also before that is stored."""
        self.journal = journal
        self.replica = replica
        self.folded = folded
        self.meta = meta
        self.task_id = meta["task"]
        self.question = folded.question
        self.messages: dict[str, str] = dict(folded.messages)
        self.users = 0
        self.state: int = folded.state
        self.run: Run | None = None
        self.watches: dict[str, asyncio.Task[None]] = {}
        self.hold: asyncio.Future[Any] | None = None
        self.on_change: Callable[[Live, int], None] = lambda _live, _before: None
        self._pending: list[Record] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._steps: dict[str, asyncio.Future[Step]] = {}
        self._followers: set[asyncio.Queue[Event | None]] = set()
        self._flushing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._last_status = folded.task.status.timestamp.ToMilliseconds()

    @property
    def ended(self) -> bool:
        """Whether the task has ended, or will with what is about to be committed."""
        return self.state in TERMINAL

    @property
    def busy(self) -> bool:
        """Whether memory is needed for it: something runs, waits, follows or is to be written."""
        return bool(self.users or self.run or self.watches or self._followers or self._pending or self._flushing)

    def append(self, *records: Record) -> None:
        """Take records into the next entry. Raises TaskEnded after a terminal status has been appended."""
        if self.ended:
            raise TaskEnded(f"task {self.task_id} has ended")
        for record in records:
            match record:
                case ["status", at, state, *_]:
                    self._last_status = record[1] = max(at, self._last_status + 1)
                    self.state = state
                case ["message", message_id, digest, *_]:
                    self.messages[message_id] = digest
                    self.question = None
                case ["question", question_id, key, spec]:
                    self.question = Question(question_id, key, spec)
        self._pending.extend(records)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name=f"flush {self.task_id}")

    def status(self, state: int, message: bytes = b"", branch: str = "", number: int = 0) -> Record:
        """A status record, stamped now."""
        return ["status", time.time_ns() // 1_000_000, state, message, branch, number]

    async def commit(self, *, hurry: bool = True) -> None:
        """Return once everything appended so far is stored; without `hurry`, when the first entry is written anyway.

        Raises TaskConflict when another replica owns the task now, StoreUnavailable when the store does not answer in
        time: then the outcome is not known, and the same message may be sent again.
        """
        if hurry:
            self.release()
        if self._flushing is None:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter, ACKNOWLEDGE_SECONDS)
        except TimeoutError:
            raise StoreUnavailable(
                "the state store does not answer, so whether this was stored is not known; send the same message again"
            ) from None

    def release(self) -> None:
        """Write the first entry now, whatever else might still join it."""
        if self.hold and not self.hold.done():
            self.hold.set_result(None)

    async def settled(self) -> None:
        """Return once the stored task has ended or waits for a person, with nothing of it still to be written."""
        while self._flushing is not None or self.folded.state not in TERMINAL | INTERRUPTED:
            await self.changed()

    async def changed(self) -> None:
        """Return when something of this task has been stored, or failed to be."""
        self._changed.clear()
        await self._changed.wait()

    def step_done(self, key: str) -> asyncio.Future[Step]:
        """A future for the stored result of a step that waits."""
        future: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        step = self.folded.steps.get(key)
        if step is not None and step.done:
            future.set_result(step)
        else:
            self._steps[key] = future
        return future

    async def follow(self) -> AsyncIterator[Event]:
        """The task as it is stored now, then every event as it is stored, until the task has ended.

        A reader that falls too far behind is cut: its stream ends without a terminal event, and it may come again.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(FOLLOWER_EVENTS)
        self._followers.add(queue)
        try:
            yield self.folded.public()
            if self.folded.ended:
                return
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._followers.discard(queue)

    async def question_closed(self) -> None:
        """Return once the task has no open question, stored or about to be."""
        while self.question is not None:
            await self.changed()

    async def close(self) -> None:
        """Forget the task: its followers' streams end, its run and waits stop. The log goes on where it is taken up."""
        tasks = [*self.watches.values(), *([self._flushing] if self._flushing else [])]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        self._cut_followers()
        self._fail_waiters(StoreUnavailable("this agent is stopping; send the same message again"))

    async def _flush(self) -> None:
        try:
            if self.hold is not None:
                await self.hold
                self.hold = None
            while self._pending:
                records, self._pending = self._pending, []
                waiters, self._waiters = self._waiters, []
                await self._write(records, waiters)
        except (TaskConflict, StoreUnavailable) as error:
            self._fail_waiters(error)
        finally:
            self._flushing = None
            self._changed.set()

    async def _write(self, records: list[Record], waiters: list[asyncio.Future[None]]) -> None:
        folded = self.folded
        handover = folded.owner_replica != self.replica
        number = folded.n + 1
        added: list[Record] = [["lease", self.replica]] if handover else []
        if number % SNAPSHOT_EVERY == 0:
            added.insert(0, ["snapshot", folded.snapshot()])
        entry = Entry(
            previous=folded.nonce,
            epoch=folded.epoch + 1 if handover else folded.epoch,
            at=max(time.time_ns() // 1_000_000, folded.at + 1),
            records=[*added, *records] if folded.n else [*records, *added],
        )
        try:
            await self.journal.append(self._append_of(entry))
        except TaskConflict as error:
            await self._lost(entry, records, waiters, error)
            return
        except StoreUnavailable as error:
            _fail(waiters, error)
            raise
        before = folded.state
        folded.apply(entry)
        if folded.state != before:
            self.on_change(self, before)
        if number % SNAPSHOT_EVERY == 0:
            await self.journal.store.write([], {head_key(self.task_id): str(number).encode()})
        self._publish(entry.records)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._changed.set()

    def _append_of(self, entry: Entry) -> Append:
        folded = self.folded
        meta = self.meta
        after = folded.preview(entry.records)
        line = None
        if after.state != folded.state:
            line = Line(self.task_id, meta["context"], folded.state, after.state, after.status_at)
        return Append(
            key=log_key(self.task_id, folded.n + 1),
            data=entry.pack(),
            task_id=self.task_id,
            owner=(meta["tenant"], meta["owner"]),
            line=line,
            listed=after.must_move,
            contested=folded.n == 0 or entry.epoch != folded.epoch,
        )

    async def _lost(
        self, entry: Entry, records: list[Record], waiters: list[asyncio.Future[None]], error: TaskConflict
    ) -> None:
        """Somebody else has written this entry: rebase while the task is still ours, else stop without a word."""
        ours = self.folded.n > 0
        if ours:
            await catch_up(self.journal, self.task_id, self.folded)
            ours = self.folded.epoch <= entry.epoch and self.folded.owner_replica in ("", self.replica)
        if ours and not self.folded.ended:
            self._pending = records + self._pending
            self._waiters = waiters + self._waiters
            return
        _fail(waiters, error)
        self._cut_followers()
        if self.run is not None:
            self.run.abandon()
        raise error

    def _publish(self, records: list[Record]) -> None:
        for record in records:
            match record:
                case ["status", at, state, message, *_]:
                    self._tell(
                        TaskStatusUpdateEvent(
                            task_id=self.task_id,
                            context_id=self.meta["context"],
                            status=status_of(at, state, message),
                        )
                    )
                case ["artifact", data, append, last, *_]:
                    self._tell(
                        TaskArtifactUpdateEvent(
                            task_id=self.task_id,
                            context_id=self.meta["context"],
                            artifact=Artifact.FromString(data),
                            append=append,
                            last_chunk=last,
                        )
                    )
        for key in [key for key in self._steps if key in self.folded.steps and self.folded.steps[key].done]:
            future = self._steps.pop(key)
            if not future.done():
                future.set_result(self.folded.steps[key])
        if self.folded.ended:
            self._cut_followers()

    def _tell(self, event: Event) -> None:
        for queue in list(self._followers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._followers.discard(queue)
                _cut(queue)

    def _cut_followers(self) -> None:
        for queue in self._followers:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    def _fail_waiters(self, error: Exception) -> None:
        _fail(self._waiters, error)
        self._waiters = []


def _cut(queue: asyncio.Queue[Event | None]) -> None:
    queue.get_nowait()
    queue.put_nowait(None)


def _fail(waiters: list[asyncio.Future[None]], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
