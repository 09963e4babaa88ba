"""A skill running over its recorded steps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sidecard.errors import SidecardError
from sidecard.screening.guard import Guard
from sidecard.tasks import binding
from sidecard.tasks.entry import Record
from sidecard.tasks.live import Live
from sidecard.tasks.recording import same
from sidecard.tasks.screened import Screened
from sidecard.tasks.state import Step
from sidecard.tasks.states import WORKING

EVICT_SECONDS = 30.0
"""How long a run that only waits for something that may come soon stays in memory."""
STOP_SECONDS = 5.0
"""How long a skill that is cancelled may clean up, effects under way aside."""


class StepMismatch(SidecardError):
    """The skill took another way than its log records: its code changed, or it is not deterministic between steps."""


class OutcomeUnknown(SidecardError):
    """An effect was begun and its outcome never recorded: it may have happened, and is not repeated by itself."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} was started and its outcome is not known; check it by hand before asking for it again"
        )


class Watcher(Protocol):
    """Sees to it that steps end which wait for something outside."""

    def watch(self, live: Live, key: str) -> bool:
        """Wait for a step on its task's behalf; True when it may end soon enough to stay in memory for it."""

    def unwatch(self, live: Live, key: str) -> None:
        """Nobody waits for that step any more."""

    def bears(self, live: Live) -> bool:
        """Whether a token is at hand by which the rights of whom the task is for can travel."""

    async def another(self, skill: str, like: str, tried: Sequence[str], tenant: str) -> str:
        """Another agent with that skill; see `watch.Delegator`."""

    async def cancel_children(self, live: Live) -> list[Record]:
        """Cancel what a task has delegated and nobody waits for any more. Returns when all are told, or can't be now.

        What is returned must be stored together with the task's end: those who could not be told, who then will be.
        """


@dataclass(slots=True, eq=False)
class Branch:
    """A line of work within a run; steps are numbered within it. `waits` tell whether what it awaits is yet to come."""

    id: str
    steps: int = 0
    outputs: int = 0
    children: int = 0
    waits: list[Callable[[], bool]] = field(default_factory=list)


T = TypeVar("T")
_branch: ContextVar[Branch] = ContextVar("branch")


class Run:
    """One pass of a skill from its top. Everything that is recorded returns at once; the rest is done and recorded.

    When every branch only waits, the run is evicted: cancelled without a trace, to run again when something happens.
    """

    def __init__(self, live: Live, watcher: Watcher, guard: Guard | None = None) -> None:
        self.live = live
        self.screened = Screened(live, guard)
        self.over = False
        self.cancelling = False
        self._watcher = watcher
        self._branches: dict[Branch, asyncio.Task[Any]] = {}
        self._active = 0
        self._effects = 0
        self._soon = 0
        self._evict_timer: asyncio.TimerHandle | None = None
        self._main: asyncio.Task[None] | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, body: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `body` in a task of its own; the live task forgets the run when it ends."""
        self._main = self._spawn(Branch("0"), body, f"run {self.live.task_id}")
        self._main.add_done_callback(lambda _: self._finish())
        return self._main

    def abandon(self) -> None:
        """Stop without a word: evicted, or the task is run elsewhere now. Every later step is refused."""
        self._finish()
        if self._main is not None:
            self._main.cancel()

    async def cancel(self) -> None:
        """Stop because the task is to be cancelled; an effect under way is waited for and recorded."""
        self.cancelling = True
        if self._main is None:
            return
        self._main.cancel()
        while not self._main.done():
            await asyncio.wait([self._main], timeout=STOP_SECONDS)
            if not self._main.done() and not self._effects:
                self.abandon()  # its clean-up takes too long; whatever it still does is refused
                return

    async def ended(self, seconds: float) -> None:
        """Wait that long at most for the run's end."""
        if self._main is not None:
            await asyncio.wait([self._main], timeout=seconds)

    def _finish(self) -> None:
        self.over = True
        if self.live.run is self:
            self.live.run = None
        if self._evict_timer:
            self._evict_timer.cancel()
        for branch, task in list(self._branches.items()):
            if branch.id != "0":
                task.cancel()

    # -- steps and outputs --------------------------------------------------------------------------------------------

    async def step(self, kind: str, arguments: str) -> tuple[str, Step | None]:
        """This branch's next step: its key and what is recorded of it. Raises StepMismatch when that is another one.

        Nothing of a step is done before this returns: a replay waits here for ever rather than do it.
        """
        self.check()
        branch = _branch.get()
        key = f"{branch.id}:{branch.steps}"
        branch.steps += 1
        recorded = self.live.folded.steps.get(key)
        if recorded and not (recorded.kind == kind and same(recorded.arguments, arguments)):
            raise StepMismatch(
                f"step {key} was recorded as {recorded.kind}, the skill now does {kind} or with other arguments; "
                "what lies between steps must be deterministic, and a changed skill needs a new version"
            )
        if recorded and recorded.end == "dropped":
            raise asyncio.CancelledError("this branch was cancelled here")
        return key, recorded

    def fresh(self) -> bool:
        """Whether this branch is at its end as far as that is recorded: what it does now it has not done before."""
        branch = _branch.get()
        return f"{branch.id}:{branch.steps}" not in self.live.folded.steps

    def bears(self) -> bool:
        """See Watcher."""
        return self._watcher.bears(self.live)

    async def another(self, skill: str, like: str, tried: Sequence[str]) -> str:
        """See Watcher."""
        return await self._watcher.another(skill, like, tried, self.live.meta["tenant"])

    def output(self) -> tuple[str, int, bool]:
        """(branch, number, whether it is stored already) of this branch's next output."""
        self.check()
        branch = _branch.get()
        branch.outputs += 1
        return branch.id, branch.outputs, branch.outputs <= self.live.folded.emitted.get(branch.id, 0)

    async def let_go(self, *, everywhere: bool = False) -> None:
        """Give out what is held of artifacts (see `screening.pieces`): of this branch, or `everywhere`."""
        for held, name in self.screened.held("" if everywhere else _branch.get().id):
            branch, number, stored = self.output()
            goes, pieces, before = self.screened.piece(held, name, "", last=True)
            if not stored:
                given = binding.artifact_of(name, name, goes)
                decided, artifact = await self.screened.given_on(given, pieces, before)
                self.append(*decided, ["artifact", artifact, True, False, branch, number])

    async def artifact(self, name: str, *values: object) -> list[Record]:
        """The records of an artifact that this branch gives out; none where it is stored already."""
        branch, number, stored = self.output()
        self.screened.forget(branch, name)
        if stored:
            return []
        decided, artifact = await self.screened.artifact(binding.artifact_of(name, name, *values))
        return [*decided, ["artifact", artifact, False, True, branch, number]]

    def append(self, *records: Record) -> None:
        """Append to the task's log; refused once the run is over."""
        self.check()
        self.live.append(*records)

    async def commit(self) -> None:
        """Wait until everything appended is stored, however long the store is down."""
        await self.live.stored()
        self.check()

    async def keep_up(self) -> None:
        """Wait for the store when it is far behind."""
        while self.live.behind and not self.over:
            await self.live.changed()

    def check(self) -> None:
        """Raises CancelledError once the run is over."""
        if self.over or self.cancelling:
            raise asyncio.CancelledError("this run is over; a new one may go on elsewhere")

    @contextlib.contextmanager
    def droppable(self, key: str, kind: str, arguments: str) -> Iterator[None]:
        """Record that a branch was cancelled within this step, so that the next run cancels it there too."""
        try:
            yield
        except asyncio.CancelledError:
            live = self.live
            if not (self.over or self.cancelling or live.ended or live.lost):
                asked = live.question is not None and live.question.step == key
                status = [live.status(WORKING)] if asked else []
                live.append(["dropped", key, kind, arguments, None], *status)
                self._watcher.unwatch(live, key)
            raise

    @contextlib.asynccontextmanager
    async def withdrawn(self, key: str) -> AsyncIterator[None]:
        """Record that the effect of a step was not had after all, when this agent stops before it is: the next run may.

        It would else end the task, since nobody could know.
        """
        try:
            yield
        except asyncio.CancelledError:
            live = self.live
            if self.over and not (self.cancelling or live.ended or live.lost):
                with contextlib.suppress(SidecardError):
                    live.append(["withdrawn", key])
                    await live.stored()
            raise

    @contextlib.contextmanager
    def effect(self) -> Iterator[None]:
        """While an effect is under way a cancelled run is waited for."""
        self._effects += 1
        try:
            yield
        finally:
            self._effects -= 1

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def park(self, key: str, kind: str, arguments: str, *, watched: bool) -> Step:
        """Wait for a step that somebody else ends; when nothing else of the run is active, it may be evicted."""
        waiting = self.live.step_done(key)
        soon = watched and not waiting.done() and self._watcher.watch(self.live, key)
        self._soon += soon
        try:
            with self.droppable(key, kind, arguments):
                return await self.idle(waiting, lambda: not waiting.done())
        finally:
            self._soon -= soon

    async def idle(self, waiting: Awaitable[T], still: Callable[[], bool]) -> T:
        """Await something while this branch counts as inactive; `still` tells whether it is yet to come."""
        branch = _branch.get()
        if not branch.waits:
            self._active -= 1
        branch.waits.append(still)
        self._rest()
        try:
            return await waiting
        finally:
            branch.waits.remove(still)
            if not branch.waits:
                self._active += 1

    def branch(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work side by side, in a branch of its own."""
        parent = _branch.get()
        child = Branch(f"{parent.id}.{parent.children}")
        parent.children += 1
        return self._spawn(child, work, f"branch {child.id} of {self.live.task_id}")

    def _spawn(self, branch: Branch, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        async def main() -> T:
            _branch.set(branch)
            return await work

        def ended(done: asyncio.Task[T]) -> None:
            work.close()  # had it been cancelled before it began
            del self._branches[branch]
            self._active -= 1
            if not done.cancelled():
                done.exception()  # told to whoever awaits it, if anybody does
            self._rest()

        self._active += 1
        task = self._branches[branch] = asyncio.create_task(main(), name=name)
        task.add_done_callback(ended)
        return task

    def _rest(self) -> None:
        """Something has come to rest: when everything has, the run may go."""
        if self._active == 0 and not self.over:
            if self._evict_timer:
                self._evict_timer.cancel()
            self._evict_timer = asyncio.get_running_loop().call_later(EVICT_SECONDS if self._soon else 0, self._evict)

    def _evict(self) -> None:
        """Evict the run, unless a branch is about to go on."""
        if self._active == 0 and not self.over and all(still() for branch in self._branches for still in branch.waits):
            self.abandon()
