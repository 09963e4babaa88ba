"""Work side by side within a skill."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, Self, TypeVar

from sidecard.tasks.run import Run

T = TypeVar("T")


class Working(Generic[T]):
    """A branch at work: await it for its result, or take `result()` once its group is left."""

    def __init__(self, run: Run, task: "asyncio.Task[T]") -> None:
        self.task = task
        self._run = run

    def result(self) -> T:
        """What the branch returned. Raises what it raised, InvalidStateError while it works."""
        return self.task.result()

    def __await__(self) -> Generator[Any, None, T]:
        return self._run.idle(self.task, lambda: not self.task.done()).__await__()


class Group:
    """Branches of a skill that work side by side; leaving the group waits for all of them.

    When one fails the others are cancelled, with what they have delegated, and the group raises what that one raised.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._branches: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, T]) -> Working[T]:
        """Start a branch."""
        branch = self._run.branch(work)
        self._branches.append(branch)
        return Working(self._run, branch)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._branches:
                waiting = asyncio.wait(self._branches, return_when=asyncio.FIRST_EXCEPTION)
                await self._run.idle(waiting, lambda: not (self._all_done() or self._failed()))
        finally:
            for branch in self._branches:
                branch.cancel()
            if not self._all_done():  # effects under way are seen through
                await asyncio.wait(self._branches)
        if kind is None and (failed := self._failed()):
            failed[0].result()

    def _all_done(self) -> bool:
        return all(branch.done() for branch in self._branches)

    def _failed(self) -> list["asyncio.Task[Any]"]:
        return [b for b in self._branches if b.done() and not b.cancelled() and b.exception() is not None]
