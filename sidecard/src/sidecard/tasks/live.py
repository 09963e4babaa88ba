"""One task in this replica's memory: what it has yet to commit, who follows it, and its run."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol

from sidecard.errors import LogBroken, SidecardError, StoreUnavailable, TaskConflict
from sidecard.tasks.act import Act
from sidecard.tasks.entry import Entry, Record
from sidecard.tasks.events import Event
from sidecard.tasks.follower import Followers, Until, for_ever
from sidecard.tasks.journal import Journal
from sidecard.tasks.outcomes import Outcomes
from sidecard.tasks.pending import Pending, outcome_unknown
from sidecard.tasks.prospect import Prospect
from sidecard.tasks.state import ENDS, FoldedTask, Place, Question, Step
from sidecard.tasks.states import INTERRUPTED, TERMINAL
from sidecard.tasks.writer import Neighbours, Writer, run_elsewhere

log = logging.getLogger("sidecard.tasks")

ACKNOWLEDGE_SECONDS = 20.0


class TaskEnded(TaskConflict):
    """The task has reached a terminal state; nothing more can be appended."""


class Running(Protocol):
    """A task's run in this process; see run.Run."""

    def abandon(self) -> None:
        """Stop without a word."""

    async def cancel(self) -> None:
        """Stop because the task is to be cancelled."""

    async def ended(self, seconds: float) -> None:
        """Wait that long at most for its end."""


class Keeper(Neighbours, Protocol):
    """Who keeps tasks in memory, and moves them on."""

    def stored(self, live: "Live", before: int, records: list[Record], *, own: bool) -> None:
        """An entry of this task is stored, this replica's `own` or another's; `before` was its state."""

    def let_go(self, live: "Live") -> None:
        """This task may no longer be needed in memory."""


class Live:
    """What is known, wanted and awaited of one task. Its log is written by its `writer`, one entry at a time.

    What is appended takes part in decisions at once (`state`, `ended`), and leaves this process only when committed.
    When a task that runs here is taken over by another replica, this object is `lost`, for good: load the task again.
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
        self.replica = replica
        self.clock = clock
        self.folded = folded
        self.meta = meta
        self.task_id = meta["task"]
        self.users = 0
        self.run: Running | None = None
        self.watches: dict[str, asyncio.Task[None]] = {}
        self.stalled: TaskConflict | None = None
        self.lost: SidecardError | None = None
        self.canceling = False
        self.failure = "error"
        self._keeper = keeper
        self._pending = Pending()
        self._sealing: list[bytes] = []
        self._prospect = Prospect(folded)
        self._outcomes = Outcomes(folded)
        self._followers = Followers(journal.store, folded, meta)
        self.writer = Writer(journal, keeper, folded, meta, self._pending, replica=replica, clock=clock)
        self._changed = asyncio.Event()

    @property
    def state(self) -> int:
        """The task's state, with what is about to be committed."""
        return self._prospect.state

    @property
    def question(self) -> Question | None:
        """The open question, with what is about to be committed."""
        return self._prospect.question

    @property
    def asks(self) -> str:
        """The id of the open question, "" for none."""
        return self.question.id if self.question is not None else ""

    @property
    def messages(self) -> dict[str, str]:
        """The digest of each message by its id, with what is about to be committed."""
        return self._prospect.messages

    @property
    def sealed(self) -> list[bytes]:
        """The sealed originals of what was redacted in it, with those that are about to be committed."""
        return [*self.folded.sealed, *self._sealing]

    @property
    def ended(self) -> bool:
        """Whether the task has ended, or will with what is about to be committed."""
        return self._prospect.ended

    @property
    def owned(self) -> bool:
        """Whether this replica moves the task on."""
        return self.folded.owner_replica in ("", self.replica)

    @property
    def writing(self) -> bool:
        """Whether an entry of it is being written here, so that this replica meets what others append by itself."""
        return self.writer.writing

    @property
    def busy(self) -> bool:
        """Whether memory is needed for it: something runs, waits, follows or is to be written."""
        works = self.users or self.run or self.canceling or self.watches
        return bool(works or self.writer.writing or self._pending or self._followers)

    @property
    def behind(self) -> bool:
        """Whether so much waits to be stored that whoever makes more should wait too."""
        return self._pending.full

    # -- appending ----------------------------------------------------------------------------------------------------

    def append(self, *records: Record, act: Act | None = None, answers: str | None = None) -> None:
        """Take records into one entry, together; the `act` that they come from is in the audit by the same write.

        A message `answers` the open question, "" for none. Where another replica turns out to have changed that first,
        nothing of it is stored, since who may answer one question may not answer every other.

        Raises TaskEnded after a terminal status, TooLarge, IllegalMove, TaskConflict.
        """
        size = self._check(records)
        self._anticipate(records)
        if act is not None and act.kept:
            act.task, act.skill = self.task_id, self.meta["skill"]
        else:
            act = None
        self._pending.add(records, size, act, answers)
        self._sealing += [record[4] for record in records if record[0] == "screened" and record[4]]
        self.writer.start(self)

    def end_step(self, key: str, step: Step, *before: Record) -> None:
        """Append the outcome of a step that waits, behind other records, and let its run go on. Raises as `append`.

        The run goes on at once, so that what it does next is stored together with the outcome; nothing of that leaves
        before, and whoever runs the task again after a crash waits for the same outcome.
        """
        records = (*before, [step.end, key, step.kind, step.arguments, step.value])
        self._check(records)
        self._outcomes.expect(key, step)  # first, since the loop keeps this order: the run's next records join these
        self.append(*records)

    def _check(self, records: tuple[Record, ...]) -> int:
        if self.lost is not None:
            raise TaskConflict(f"task {self.task_id} is run elsewhere now, or could not be stored")
        if self.ended:
            raise TaskEnded(f"task {self.task_id} has ended")
        self._prospect.check(records)
        return self._pending.check(records)

    def _anticipate(self, records: tuple[Record, ...] | list[Record]) -> None:
        """Let appended records take part in decisions before they are stored."""
        self._prospect.take(records)
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
        timer = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, outcome_unknown, storing)
        try:
            await storing
        finally:
            timer.cancel()

    async def stored(self, *, hurry: bool = True) -> None:
        """Return once everything appended so far is stored; without `hurry`, when that is written anyway.

        Raises TaskConflict when another replica owns the task now, StoreUnavailable when this agent is stopping.
        """
        storing = self._storing(hurry=hurry)
        if storing is not None:
            await storing

    def _storing(self, *, hurry: bool) -> asyncio.Future[None] | None:
        """What ends when everything appended so far is stored; None when it is already."""
        if hurry:
            self.writer.release(self)
        if self.lost is not None:
            raise self.lost
        return self._pending.waiter()

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
        return self._outcomes.of(key)

    def step_done(self, key: str) -> asyncio.Future[Step]:
        """A future for the result of a step that waits."""
        return self._outcomes.awaited(key)

    def follow(
        self, *, beyond: bool = False, after: Place | None = None, until: Until = for_ever
    ) -> AsyncIterator[Event]:
        """The task as it is stored now, then every event as it is stored, until the task rests (A2A 1.0 §11.7).

        It rests when it has ended or waits for somebody; `beyond` such a wait it may be followed from, not to. With a
        place `after` which to begin, the events behind it come instead of the task, none missed and none repeated. A
        reader that falls too far behind is cut: its stream ends without a terminal event, and it may come again.
        `until` may end the stream at any time.
        """
        return self._followers.follow(after, partial(self._keeper.let_go, self), beyond=beyond, until=until)

    def hear(self, data: bytes) -> None:
        """Take in the next entry, which somebody else has written."""
        ran_here = self.owned
        try:
            self.take_in(Entry.unpack(data), own=False)
        except LogBroken as error:
            log.error("%s", error)
            self.lose(error)
            return
        self._prospect.begin()
        if ran_here and not self.owned and self.run is not None:
            self.lose(run_elsewhere(self.task_id))

    async def close(self) -> None:
        """Forget the task: its followers' streams end, its run and waits stop. The log goes on where it is taken up."""
        self.lose(StoreUnavailable("this agent is stopping; send the same message again"))
        await asyncio.gather(*self.writer.cancel(), *self.watches.values(), return_exceptions=True)

    # -- being written ------------------------------------------------------------------------------------------------

    def take_in(self, entry: Entry, *, own: bool) -> None:
        """See writer.Written. Everybody is told."""
        before, question = self.folded.state, self.folded.question
        self.folded.apply(entry)
        followed = bool(self._followers)
        for number, record in enumerate(entry.records):
            if followed:
                self._followers.tell(record, (self.folded.n, number))
            if record[0] in ENDS:
                self._outcomes.stored(record[1])
        if question is not None:
            self._outcomes.stored(question.step)
        if self.folded.ended:
            self._followers.cut()
        self._changed.set()
        self._keeper.stored(self, before, entry.records, own=own)

    def rebase(self) -> None:
        """See writer.Written."""
        if self.folded.ended:
            raise TaskEnded(f"task {self.task_id} has ended")
        self._prospect.begin()
        for append in self._pending:
            if append.answers is None or append.answers == self.asks:
                self._anticipate(append.records)
            else:
                append.drop()

    def lose(self, error: SidecardError) -> None:
        """See writer.Written. It stops without a word to anyone but those who wait here."""
        if self.lost is not None:
            return
        self.lost = error
        if self.run is not None:
            self.run.abandon()
        for watch in self.watches.values():
            watch.cancel()
        self._pending.give_up(error)
        self.writer.forget_hold()
        self._followers.cut()
        self._changed.set()
        self._keeper.let_go(self)

    def flushed(self) -> None:
        """See writer.Written."""
        self._changed.set()
        self._keeper.let_go(self)
