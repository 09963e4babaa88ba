"""One task in this replica's memory: what it has yet to commit, who follows it, and its run."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from a2a.types import TaskStatusUpdateEvent

from sidecard.errors import LogBroken, SidecardError, StoreUnavailable, TaskConflict
from sidecard.tasks.entry import Entry, Record, log_key
from sidecard.tasks.events import Event, event_of, events_since, task_of
from sidecard.tasks.follower import Followers
from sidecard.tasks.journal import Journal
from sidecard.tasks.loading import catch_up
from sidecard.tasks.next_entry import NextEntry, has_lease
from sidecard.tasks.patience import patiently
from sidecard.tasks.pending import Pending, size_of
from sidecard.tasks.state import ENDS, FoldedTask, Place, Question, Step
from sidecard.tasks.states import INTERRUPTED, TERMINAL, check_move

if TYPE_CHECKING:
    from sidecard.tasks.run import Run

log = logging.getLogger("sidecard.tasks")

ACKNOWLEDGE_SECONDS = 20.0
GAP_SECONDS = 0.1
FAIR_RACES = 2
"""Races that an outsider may lose before it knocks."""


class TaskEnded(TaskConflict):
    """The task has reached a terminal state; nothing more can be appended."""


class Keeper(Protocol):
    """Who keeps tasks in memory, and moves them on."""

    def stored(self, live: "Live", before: int, records: list[Record], *, own: bool) -> None:
        """An entry of this task is stored, this replica's `own` or another's; `before` was its state."""

    def let_go(self, live: "Live") -> None:
        """This task may no longer be needed in memory."""

    def alive(self, replica: str) -> bool:
        """Whether that other replica is alive, and so moves its tasks on."""

    async def knock(self, replica: str, task_id: str) -> None:
        """Make that other replica look at a task of its own."""


class Live:
    """Serialises the appends of one task: at most one entry in flight, each record in exactly one entry.

    What is appended takes part in decisions at once (`state`, `ended`), and leaves this process only when committed.
    A task that rests, or whose owner is dead, is taken over by whoever appends to it; to one that another replica moves
    on this one appends as an outsider, and leaves the rest to the owner. When a task that runs here is taken over by
    another replica, this object is `lost`, for good: load the task again.
    """

    def __init__(
        self,
        journal: Journal,
        keeper: Keeper,
        folded: FoldedTask,
        meta: dict[str, str],
        *,
        replica: str,
        clock: Callable[[], int],
    ) -> None:
        """`meta` is the "new" record's, also before that is stored; `clock` gives UTC in milliseconds."""
        self.journal = journal
        self.replica = replica
        self.clock = clock
        self.folded = folded
        self.meta = meta
        self.task_id = meta["task"]
        self.users = 0
        self.run: Run | None = None
        self.watches: dict[str, asyncio.Task[None]] = {}
        self._held: asyncio.Future[None] | None = None
        self._releasing: asyncio.TimerHandle | None = None
        self.stalled: TaskConflict | None = None
        self.lost: SidecardError | None = None
        self.canceling = False
        self.failure = "error"
        self._pausing = False
        self._races = 0
        self._keeper = keeper
        self._pending = Pending()
        self._steps: dict[str, asyncio.Future[Step]] = {}
        self._outcomes: dict[str, Step] = {}
        self._followers = Followers()
        self._flushing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._next = NextEntry(folded, replica)
        self._begin_from_folded()

    def _begin_from_folded(self) -> None:
        self.state: int = self.folded.state
        self.question = self.folded.question
        self.messages = dict(self.folded.messages)
        self._last_status = self.folded.task.status.timestamp.ToMilliseconds()

    @property
    def ended(self) -> bool:
        """Whether the task has ended, or will with what is about to be committed."""
        return self.state in TERMINAL

    @property
    def owned(self) -> bool:
        """Whether this replica moves the task on."""
        return self.folded.owner_replica in ("", self.replica)

    @property
    def writing(self) -> bool:
        """Whether an entry of it is being written here, so that this replica meets what others append by itself."""
        return self._flushing is not None

    @property
    def busy(self) -> bool:
        """Whether memory is needed for it: something runs, waits, follows or is to be written."""
        waits = self.watches or self._followers or self._pending or self._flushing
        return bool(self.users or self.run or self.canceling or waits)

    @property
    def behind(self) -> bool:
        """Whether so much waits to be stored that whoever makes more should wait too."""
        return self._pending.full

    # -- appending ----------------------------------------------------------------------------------------------------

    def append(self, *records: Record) -> None:
        """Take records into one entry, together.

        Raises TaskEnded after a terminal status, TooLarge, IllegalMove, TaskConflict.
        """
        size = self._check(records)
        self._anticipate(records)
        self._pending.add(records, size)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name=f"flush {self.task_id}")

    def end_step(self, key: str, step: Step, *before: Record) -> None:
        """Append the outcome of a step that waits, behind other records, and let its run go on. Raises as `append`.

        The run goes on at once, so that what it does next is stored together with the outcome; nothing of that leaves
        before, and whoever runs the task again after a crash waits for the same outcome.
        """
        records = (*before, [step.end, key, step.kind, step.arguments, step.value])
        self._check(records)
        future = self._steps.pop(key, None)
        if future is not None and not future.done():
            future.set_result(step)  # first, since the loop keeps this order: the run's next records join these
        self._outcomes[key] = step
        self.append(*records)

    def _check(self, records: tuple[Record, ...]) -> int:
        if self.lost is not None:
            raise TaskConflict(f"task {self.task_id} is run elsewhere now, or could not be stored")
        if self.ended:
            raise TaskEnded(f"task {self.task_id} has ended")
        state = self.state
        for record in records:
            if record[0] == "status":
                check_move(state, record[2])
                state = record[2]
        return self._pending.check(records)

    def _anticipate(self, records: tuple[Record, ...] | list[Record]) -> None:
        """Let appended records take part in decisions before they are stored."""
        for record in records:
            match record:
                case ["status", at, state, *_]:
                    self._last_status = record[1] = max(at, self._last_status + 1)
                    self.state = state
                    self.question = None if self.ended else self.question
                case ["message", message_id, digest, *_]:
                    self.messages[message_id] = digest
                    self.question = None
                case ["question", question_id, key, spec]:
                    self.question = Question(question_id, key, spec)
                case [kind, key, *_] if kind in ENDS and self.question is not None and self.question.step == key:
                    self.question = None
        if self.question is None:
            self._changed.set()

    def status(self, state: int, message: bytes = b"", branch: str = "", number: int = 0) -> Record:
        """A status record, stamped now."""
        return ["status", self.clock(), state, message, branch, number]

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def commit(self, *, hurry: bool = True) -> None:
        """Like `stored`, for whoever can't wait for ever: after a while raises StoreUnavailable.

        Then the outcome is not known, and the same message may be sent again.
        """
        storing = self._storing(hurry=hurry)
        if storing is None:
            return
        timer = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, _give_up_on, storing)
        try:
            await storing
        finally:
            timer.cancel()

    async def stored(self, *, hurry: bool = True) -> None:
        """Return once everything appended so far is stored; without `hurry`, when the first entry is written anyway.

        Raises TaskConflict when another replica owns the task now, StoreUnavailable when this agent is stopping.
        """
        storing = self._storing(hurry=hurry)
        if storing is not None:
            await storing

    def _storing(self, *, hurry: bool) -> asyncio.Future[None] | None:
        """What ends when everything appended so far is stored; None when it is already."""
        if hurry:
            self.release()
        if self.lost is not None:
            raise self.lost
        return self._pending.waiter()

    def hold(self, seconds: float) -> None:
        """Let the first entry wait that long for what else might join it."""
        loop = asyncio.get_running_loop()
        self._held = loop.create_future()
        self._releasing = loop.call_later(seconds, self.release)

    def release(self) -> None:
        """Write the first entry now."""
        if self._releasing is not None:
            self._releasing.cancel()
        if self._held is not None and not self._held.done():
            self._held.set_result(None)

    async def settled(self) -> None:
        """Return once the stored task has ended or waits for a person, with nothing of it still to be written.

        Raises TaskConflict when it can't go on here, StoreUnavailable when this agent is stopping.
        """
        while self._pending or self.folded.state not in TERMINAL | INTERRUPTED:
            if self.stalled is not None:
                raise self.stalled
            await self.changed()

    async def changed(self) -> None:
        """Return when something of this task has changed. Raises what made it lost."""
        if self.lost is not None:
            raise self.lost
        self._changed.clear()
        await self._changed.wait()

    async def question_closed(self) -> None:
        """Return once the task has no open question, stored or about to be."""
        while self.question is not None:
            await self.changed()

    def unwatched(self, key: str) -> None:
        """Nobody follows any more what was delegated with that step."""
        self.watches.pop(key, None)
        self._changed.set()

    def stall(self, reason: TaskConflict) -> None:
        """The task can't go on here, though it has not ended: whoever waits for it learns why."""
        self.stalled = reason
        self._changed.set()

    def step(self, key: str) -> Step:
        """A step that was begun, with its outcome if that is stored, or about to be."""
        return self._outcomes.get(key) or self.folded.steps[key]

    def step_done(self, key: str) -> asyncio.Future[Step]:
        """A future for the result of a step that waits."""
        future: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        step = self.folded.steps.get(key)
        if step is not None and step.done:
            future.set_result(step)
        else:
            self._steps[key] = future
        return future

    async def follow(self, *, beyond: bool = False, after: Place | None = None) -> AsyncIterator[Event]:
        """The task as it is stored now, then every event as it is stored, until the task rests (A2A 1.0 §11.7).

        It rests when it has ended or waits for somebody; `beyond` such a wait it may be followed from, not to. With a
        place `after` which to begin, the events behind it come instead of the task, none missed and none repeated. A
        reader that falls too far behind is cut: its stream ends without a terminal event, and it may come again.
        """
        try:
            with self._followers.joined() as follower:
                waits = self.folded.state in INTERRUPTED and not beyond
                if waits or self.folded.ended or self.lost is not None:
                    follower.cut()
                if after is None:
                    yield task_of(self.folded)
                else:
                    async for past in events_since(self.journal.store, self.meta, after, self.folded.n):
                        yield past
                async for event in follower.events():
                    yield event
                    if isinstance(event, TaskStatusUpdateEvent) and event.status.state in INTERRUPTED:
                        return
        finally:
            self._keeper.let_go(self)

    def hear(self, data: bytes) -> None:
        """Take in the next entry, which somebody else has written."""
        ran_here = self.owned
        try:
            self._take_in(Entry.unpack(data), own=False)
        except LogBroken as error:
            log.error("%s", error)
            self._lose(error)
            return
        self._begin_from_folded()
        if ran_here and not self.owned and self.run is not None:
            self._lose(self._run_elsewhere())

    async def refresh(self) -> None:
        """Take in all that others have written meanwhile. Raises StoreUnavailable."""
        while self.lost is None:
            if self.writing:  # when that is stored nobody else has written before it
                with contextlib.suppress(TaskConflict):
                    await self.commit()
                return
            key = log_key(self.task_id, self.folded.n + 1)
            data = (await self.journal.store.read([key])).get(key)
            if data is None:
                return
            if key == log_key(self.task_id, self.folded.n + 1) and not self.writing:
                self.hear(data)

    def pause(self) -> None:
        """Leave a gap before the next entry, in which others may write: a fast stream could starve a cancel."""
        self._pausing = True

    async def close(self) -> None:
        """Forget the task: its followers' streams end, its run and waits stop. The log goes on where it is taken up."""
        flushing = [self._flushing] if self._flushing else []
        self._lose(StoreUnavailable("this agent is stopping; send the same message again"))
        for task in flushing:
            task.cancel()
        await asyncio.gather(*flushing, *self.watches.values(), return_exceptions=True)

    # -- writing ------------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        try:
            if self._held is not None:
                await self._held
                self._held = None
            while self._pending and self.lost is None:
                if self._pausing:
                    self._pausing = False
                    await asyncio.sleep(GAP_SECONDS)
                await self._write()
        except (TaskConflict, StoreUnavailable) as error:
            self._lose(error)
        except Exception:
            log.exception("task %s is stopped where it is", self.task_id)
            self._lose(TaskConflict(f"task {self.task_id} could not be stored; the agent's log says why"))
        finally:
            self._flushing = None
            self._changed.set()
            self._keeper.let_go(self)

    async def _write(self) -> None:
        count, records = self._pending.next_entry()
        folded = self.folded
        outsider = self._is_outsider(records)
        entry = self._next.make(folded, records, self.clock(), outsider=outsider)
        published = self.journal.publishes
        try:
            await self.journal.append(
                self._next.append(folded, self.meta, entry, outsider=outsider, published=published)
            )
        except TaskConflict:
            await self._rebase()
            return
        self._races = 0
        self._pending.stored(count)
        self._take_in(entry, own=True)
        self._next.stored(folded)
        if outsider:
            await patiently(partial(self._keeper.knock, folded.owner_replica, self.task_id))
        self._pending.wake()

    def _is_outsider(self, records: list[Record]) -> bool:
        """Whether another replica moves this task on, and goes on doing so."""
        folded = self.folded
        if folded.n == 0 or self.owned or has_lease(records):
            return False
        return folded.must_move and self._keeper.alive(folded.owner_replica)

    def _take_in(self, entry: Entry, *, own: bool) -> None:
        """Fold an entry that is stored, and tell everybody."""
        before, question = self.folded.state, self.folded.question
        self.folded.apply(entry)
        for number, record in enumerate(entry.records):
            if self._followers and (event := event_of(record, self.meta, (self.folded.n, number))):
                self._followers.tell(event, size_of(record))
            if record[0] in ENDS:
                self._step_ended(record[1])
        if question is not None:
            self._step_ended(question.step)
        if self.folded.ended:
            self._followers.cut()
        self._changed.set()
        self._keeper.stored(self, before, entry.records, own=own)

    async def _rebase(self) -> None:
        """Somebody else has written this entry: fold it in and try again, unless the task is run elsewhere now."""
        if self.folded.n == 0:
            raise TaskConflict(f"task {self.task_id} exists already")
        ran_here = self.owned and self.run is not None
        adopting = any(has_lease(group) for group in self._pending)
        take_in = partial(self._take_in, own=False)
        await patiently(partial(catch_up, self.journal.store, self.task_id, self.folded, take_in))
        if not self.owned and (ran_here or (adopting and self._keeper.alive(self.folded.owner_replica))):
            raise self._run_elsewhere()
        if self.folded.ended:
            raise TaskEnded(f"task {self.task_id} has ended")
        self._begin_from_folded()
        for group in self._pending:
            self._anticipate(group)
        self._races += 1
        if not self.owned and self._races >= FAIR_RACES:
            await patiently(partial(self._keeper.knock, self.folded.owner_replica, self.task_id))
            await asyncio.sleep(GAP_SECONDS / 2)

    def _run_elsewhere(self) -> TaskConflict:
        return TaskConflict(f"task {self.task_id} is run by another replica now")

    def _lose(self, error: SidecardError) -> None:
        """Stop without a word to anyone but those who wait here."""
        if self.lost is not None:
            return
        self.lost = error
        if self.run is not None:
            self.run.abandon()
        for watch in self.watches.values():
            watch.cancel()
        self._pending.give_up(error)
        self._followers.cut()
        self._changed.set()
        self._keeper.let_go(self)

    # -- telling ------------------------------------------------------------------------------------------------------

    def _step_ended(self, key: str) -> None:
        step = self.folded.steps[key]
        self._outcomes.pop(key, None)
        future = self._steps.get(key)
        if future is not None and step.end:
            del self._steps[key]
            if step.done and not future.done():
                future.set_result(step)


def _give_up_on(storing: asyncio.Future[None]) -> None:
    if not storing.done():
        storing.set_exception(
            StoreUnavailable(
                "the state store does not answer, so whether this was stored is not known; send the same message again"
            )
        )
