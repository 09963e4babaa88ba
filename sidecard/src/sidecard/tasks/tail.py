"""Reading on in the logs of tasks that others write to: followed here and owned by another replica, or at rest."""

import asyncio
import itertools
import logging
from collections.abc import Iterable

from sidecard.errors import StoreUnavailable
from sidecard.tasks.entry import log_key
from sidecard.tasks.live import Live
from sidecard.tasks.lives import Lives
from sidecard.tasks.store import StateStore

log = logging.getLogger("sidecard.tasks")

LEAST_SECONDS = 0.025
MOST_SECONDS = 1.0
AHEAD = 4
"""Entries asked for of each task at once."""
BULK = 512
"""Keys in one read."""


class Tail:
    """One bulk read for all tasks that are followed, as often as there is news: every 25 ms to 1 s."""

    def __init__(self, store: StateStore, lives: Lives) -> None:
        self._store = store
        self._lives = lives

    async def run(self) -> None:
        """Read on, for ever."""
        pause = LEAST_SECONDS
        known: set[str] = set()
        while True:
            await asyncio.sleep(pause)
            followed = [live for live in self._lives.values() if _followed(live)]
            try:
                news = await self.read(followed) if followed else False
            except StoreUnavailable as error:
                log.debug("can't read on: %s", error)
                news = False
            now = {live.task_id for live in followed}
            pause = LEAST_SECONDS if news or not now or now - known else min(pause * 1.5, MOST_SECONDS)
            known = now

    async def read(self, lives: Iterable[Live]) -> bool:
        """Take in what others have written to these tasks; whether there was anything. Raises StoreUnavailable."""
        news = False
        every = iter(lives)
        while some := list(itertools.islice(every, BULK // AHEAD)):
            keys = [log_key(live.task_id, live.folded.n + i) for live in some for i in range(1, AHEAD + 1)]
            stored = await self._store.read(keys)
            for live in some:
                while (data := stored.get(log_key(live.task_id, live.folded.n + 1))) and not live.writing:
                    live.hear(data)
                    news = True
                    if live.lost is not None:
                        break
        return news


def _followed(live: Live) -> bool:
    """Whether what others write to a task matters here: its owner meets that by itself, or is told by a knock."""
    elsewhere = not (live.owned and live.folded.must_move)
    return elsewhere and live.busy and not live.writing and live.folded.n > 0 and live.lost is None
