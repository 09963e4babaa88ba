"""The outcomes of a task's steps: those that its run waits for, and those that are appended and not yet stored."""

import asyncio

from sidecard.tasks.state import FoldedTask, Step


class Outcomes:
    """A step's outcome is its end in the log; a run goes on with one that is about to be stored."""

    def __init__(self, folded: FoldedTask) -> None:
        self._folded = folded
        self._awaited: dict[str, asyncio.Future[Step]] = {}
        self._appended: dict[str, Step] = {}

    def __len__(self) -> int:
        """Those that are not yet stored."""
        return len(self._appended)

    def of(self, key: str) -> Step:
        """A step that was begun, with its outcome if that is stored, or about to be."""
        return self._appended.get(key) or self._folded.steps[key]

    def awaited(self, key: str) -> asyncio.Future[Step]:
        """A future for the outcome of a step."""
        future: asyncio.Future[Step] = asyncio.get_running_loop().create_future()
        step = self._folded.steps.get(key)
        if step is not None and step.done:
            future.set_result(step)
        else:
            self._awaited[key] = future
        return future

    def expect(self, key: str, step: Step) -> None:
        """This outcome is about to be appended: its run goes on."""
        future = self._awaited.pop(key, None)
        if future is not None and not future.done():
            future.set_result(step)
        self._appended[key] = step

    def stored(self, key: str) -> None:
        """Something that may have ended this step is stored; without an end it is waited for as before."""
        step = self._folded.steps[key]
        self._appended.pop(key, None)
        future = self._awaited.get(key)
        if future is not None and step.end:
            del self._awaited[key]
            if step.done and not future.done():
                future.set_result(step)
