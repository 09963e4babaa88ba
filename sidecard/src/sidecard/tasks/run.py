"""A skill running over its recorded steps."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from sidecard.errors import SidecardError
from sidecard.tasks.entry import Record
from sidecard.tasks.live import Live
from sidecard.tasks.state import Step

EVICT_SECONDS = 30.0
"""How long a run that only waits for other agents or for time stays in memory."""


class StepMismatch(SidecardError):
    """The skill took another way than its log records: its code changed, or it is not deterministic between steps."""


class OutcomeUnknown(SidecardError):
    """An effect was begun and its outcome never recorded: it may have happened, and is not repeated by itself."""


@dataclass(slots=True)
class Branch:
    """A line of work within a run; steps are numbered within it."""

    id: str
    steps: int = 0
    outputs: int = 0
    children: int = 0


T = TypeVar("T")
_branch: ContextVar[Branch] = ContextVar("branch")


class Run:
    """One pass of a skill from its top. Everything that is recorded returns at once; the rest is done and recorded.

    When every branch only waits, the run is evicted: cancelled without a trace, to run again when something happens.
    """

    def __init__(self, live: Live, watch: Callable[[str], None]) -> None:
        self.live = live
        self.cancelling = False
        self._watch = watch
        self._active = 1
        self._over = False
        self._main: asyncio.Task[None] | None = None
        self._evict_timer: asyncio.TimerHandle | None = None

    def start(self, body: Callable[[], Awaitable[None]]) -> None:
        """Run `body` in a task of its own; the live task forgets the run when it ends."""

        async def main() -> None:
            _branch.set(Branch("0"))
            try:
                await body()
            finally:
                self._over = True
                if self.live.run is self:
                    self.live.run = None

        self._main = asyncio.create_task(main(), name=f"run {self.live.task_id}")

    @property
    def finished(self) -> asyncio.Task[None]:
        """The task in which the run runs."""
        if self._main is None:
            raise RuntimeError("the run has not started")
        return self._main

    def abandon(self) -> None:
        """Stop without a word: evicted, or another replica owns the task now. Every later step is refused."""
        self._over = True
        if self.live.run is self:
            self.live.run = None
        if self._main is not None:
            self._main.cancel()

    async def cancel(self) -> None:
        """Stop because the task is to be cancelled; an effect under way is waited for and recorded."""
        self.cancelling = True
        if self._main is not None:
            self._main.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self._main)

    def step(self, kind: str, arguments: str) -> tuple[str, Step | None]:
        """The key of this branch's next step, and what is recorded of it. Raises StepMismatch when that is another one."""
        self._check()
        branch = _branch.get()
        key = f"{branch.id}:{branch.steps}"
        branch.steps += 1
        recorded = self.live.folded.steps.get(key)
        if recorded and (recorded.kind, recorded.arguments) != (kind, arguments):
            raise StepMismatch(
                f"step {key} was recorded as {recorded.kind}, the skill now does {kind} or with other arguments; "
                "what lies between steps must be deterministic, and a changed skill needs a new version"
            )
        return key, recorded

    def output(self) -> tuple[str, int, bool]:
        """(branch, number, whether it is stored already) of this branch's next output."""
        self._check()
        branch = _branch.get()
        branch.outputs += 1
        return branch.id, branch.outputs, branch.outputs <= self.live.folded.emitted.get(branch.id, 0)

    def append(self, *records: Record) -> None:
        """Append to the task's log; refused once the run is over."""
        self._check()
        self.live.append(*records)

    async def commit(self) -> None:
        """Wait until everything appended is stored."""
        await self.live.commit()
        self._check()

    async def park(self, key: str, *, watched: bool) -> Step:
        """Wait for a step that somebody else ends; when nothing else of the run is active, it may be evicted."""
        waiting = self.live.step_done(key)
        if watched:
            self._watch(key)
        return await self.idle(waiting)

    async def idle(self, waiting: Awaitable[T]) -> T:
        """Await something while this branch counts as inactive."""
        self._active -= 1
        if self._active == 0:
            after = EVICT_SECONDS if self.live.watches else 0
            self._evict_timer = asyncio.get_running_loop().call_later(after, self._evict)
        try:
            return await waiting
        finally:
            self._active += 1
            if self._evict_timer:
                self._evict_timer.cancel()
                self._evict_timer = None

    def branch(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work side by side, in a branch of its own."""
        self._check()
        parent = _branch.get()
        child = Branch(f"{parent.id}.{parent.children}")
        parent.children += 1
        self._active += 1

        async def main() -> Any:  # noqa: ANN401 -- whatever the work returns
            _branch.set(child)
            try:
                return await work
            finally:
                self._active -= 1

        return asyncio.create_task(main(), name=f"branch {child.id} of {self.live.task_id}")

    def _evict(self) -> None:
        if self._active == 0 and not self._over:
            self.abandon()

    def _check(self) -> None:
        if self._over:
            raise asyncio.CancelledError("this run is over; a new one may go on elsewhere")
