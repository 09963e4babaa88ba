"""Reads that begin at the same time go to the store as one."""

import asyncio
from collections.abc import Sequence

from sidecard.tasks.store import Reads

MOST = 8
"""Reads that join: what they bring is in memory together."""


class Joined:
    """A store, as its readers see it: a page of tasks costs a few calls, and so do many callers at once."""

    def __init__(self, store: Reads) -> None:
        self._store = store
        self._keys: dict[str, None] = {}
        self._count = 0
        self._reading: asyncio.Task[dict[str, bytes]] | None = None

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See store.StateStore."""
        if self._reading is None or self._count == MOST:
            self._keys, self._count = {}, 0
            self._reading = asyncio.create_task(self._read(self._keys), name="read")
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # all may be gone
        self._keys.update(dict.fromkeys(keys))
        self._count += 1
        found = await asyncio.shield(self._reading)
        return {key: found[key] for key in keys if key in found}

    async def _read(self, keys: dict[str, None]) -> dict[str, bytes]:
        self._reading = None  # who comes from now on reads anew
        return await self._store.read(list(keys))
