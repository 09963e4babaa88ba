"""Taking over the tasks of a replica that is gone: a few at once, and those it may have died of one by one."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from typing import Any

from sidecard.errors import LogBroken, SidecardError, StoreUnavailable, TaskConflict
from sidecard.tasks.live import Live
from sidecard.tasks.lives import Lives, Others
from sidecard.tasks.state import ALONE, DIED, HELD, TAKEN

log = logging.getLogger("sidecard.tasks")

AT_ONCE = 16
RETRY_SECONDS = 1.0
SUSPECT_DEATHS = 2
"""Deaths without progress after which a task runs one by one with others of its kind."""
WATCHED_SECONDS = 30.0
MOST_DOUBLINGS = 7
"""How long a suspect's run holds up the next one; twice as long after each further death, so often at most."""


class Adoption:
    """Makes this replica the owner of tasks and moves them on.

    A task whose owners die again and again without any progress is suspected to kill them, as is everything that ran
    beside it. Suspects run one at a time, so the innocent finish; the one that still takes its process down is given
    up after `tries` deaths. One that takes long is joined by the next, and then neither of them runs alone.
    """

    def __init__(
        self,
        lives: Lives,
        others: Others,
        *,
        tries: int,
        move_on: Callable[[Live], None],
        give_up: Callable[[Live], Awaitable[None]],
        in_background: Callable[[Coroutine[Any, Any, None], str], None],
    ) -> None:
        self._lives = lives
        self._others = others
        self._tries = tries
        self._move_on = move_on
        self._give_up = give_up
        self._in_background = in_background
        self._suspects: deque[str] = deque()
        self._watching = False
        self._let_run: set[str] = set()
        """The suspects that were let run, and may run still."""

    async def adopt(self, task_ids: Collection[str], *, died: bool) -> None:
        """Take these tasks over, as far as nobody else who is alive has; `died` says whether their owner did."""
        waiting = iter(task_ids)
        await asyncio.gather(*(self._adopt_each(waiting, died=died) for _ in range(min(AT_ONCE, len(task_ids)))))

    async def _adopt_each(self, task_ids: Iterator[str], *, died: bool) -> None:
        for task_id in task_ids:
            while True:
                try:
                    async with self._lives.borrow(task_id) as live:
                        if live is not None:
                            await self._adopt(live, died=died)
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                except LogBroken as error:
                    log.error("task %s can't be taken over: %s", task_id, error)
                except TaskConflict:
                    log.debug("task %s is adopted by another", task_id)
                break

    async def _adopt(self, live: Live, *, died: bool) -> None:
        folded = live.folded
        if folded.ended or not folded.must_move or self._others.alive(folded.owner_replica):
            return
        if not live.owned:
            deaths = folded.deaths_after_another() if died else folded.deaths
            if deaths >= self._tries and folded.lease == ALONE:
                live.append(["lease", live.replica, DIED])
                await self._give_up(live)
                await live.stored()
                return
            suspect = died and deaths >= SUSPECT_DEATHS
            live.append(["lease", live.replica, HELD if suspect else DIED if died else TAKEN])
            await live.stored()
        if live.folded.lease == HELD:
            self._suspects.append(live.task_id)
            if not self._watching:
                self._watching = True
                self._in_background(self._run_suspects(), "suspects")
        else:
            self._move_on(live)

    async def _run_suspects(self) -> None:
        try:
            while self._suspects:
                await self._run_alone(self._suspects.popleft())
        finally:
            self._watching = False

    async def _run_alone(self, task_id: str) -> None:
        try:
            joins = await self._join()
            async with self._lives.borrow(task_id) as live:
                if live is None or live.ended or not live.owned or live.folded.lease != HELD:
                    return
                deaths = live.folded.deaths
                how = "beside another such" if joins else "alone"
                log.warning("task %s, whose process died %d times, runs %s", task_id, deaths, how)
                live.append(["lease", live.replica, TAKEN if joins else ALONE])
                await live.stored()
                self._let_run.add(task_id)
                self._move_on(live)
                if live.run is not None:
                    await live.run.ended(WATCHED_SECONDS * 2 ** min(deaths - SUSPECT_DEATHS, MOST_DOUBLINGS))
        except StoreUnavailable:
            await asyncio.sleep(RETRY_SECONDS)
            self._suspects.append(task_id)
        except SidecardError as error:
            log.warning("task %s is not run alone here: %s", task_id, error)

    async def _join(self) -> bool:
        """Whether the next suspect begins beside another: then no death tells any more which of them it was."""
        still = False
        for task_id in list(self._let_run):
            live = self._lives.get(task_id)
            if live is None or live.run is None or live.ended or not live.owned or live.folded.progressed:
                self._let_run.discard(task_id)
                continue
            still = True
            if live.folded.lease == ALONE:
                with contextlib.suppress(TaskConflict):  # it has just ended, or is lost
                    live.append(["lease", live.replica, TAKEN])
                    await live.stored()
        return still
