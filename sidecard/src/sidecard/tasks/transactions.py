"""Committing where a write is all or nothing (SQLite, PostgreSQL): a batch is one transaction."""

from functools import partial

from sidecard.tasks.batch import Append, Batch, end
from sidecard.tasks.commits import Commits, beside
from sidecard.tasks.patience import patiently, pause


class Transactions(Commits):
    """Writes task entries and the slot's entry that lists them at once.

    When the store refuses that, since somebody has taken a key of it, one goes without that key.
    """

    async def _write(self, batch: Batch) -> None:
        attempt = 0
        appends = batch.appends
        while appends or batch.others or batch.acts:
            staged = await patiently(partial(self._stage, appends, batch))
            creates = [(append.key, append.data) for append in appends]
            upserts = beside(appends, batch.told) | staged.upserts
            lost: list[Append] = []
            while not lost:
                if await self._create(staged, creates, upserts, staged.deletes):
                    self._slot.settle(staged)
                    end(None, *appends)
                    return
                keys = [append.key for append in appends]
                stored = await patiently(partial(self.store.read, keys)) if keys else {}
                lost = [append for append in appends if append.key in stored]
                if not lost:  # refused for no reason, or not reached
                    await pause(attempt)
                    attempt += 1
            appends = self._without(appends, lost)
