"""A store whose process dies at the write that is named in a file, as `kill -9` would have it.

The file holds a moment of `MOMENTS` and a number, such as "after 3". It is read, and removed, at the first write that
finds it; that one is write 1. Signs of life and knocks don't count: they come by the clock.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from sidecard.tasks.store import DaprStateStore

MOMENTS = ("before", "amid", "after")
"""Of a write: none of it is stored, some of it (where a store writes key by key), or all of it."""
BY_THE_CLOCK = ("beat:", "knock:", "probe:")


class Trap:
    """A way to the store that may be this process's last one."""

    def __init__(self, store: DaprStateStore, order: Path) -> None:
        self._store = store
        self._order = order
        self._moment = ""
        self._left = 0

    @property
    def shared(self) -> bool:
        """See StateStore."""
        return self._store.shared

    @property
    def atomic(self) -> bool:
        """See StateStore."""
        return self._store.atomic

    async def write(
        self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> None:
        """See StateStore."""
        keys = [*(key for key, _ in creates), *upserts, *deletes]
        moment = "" if all(key.startswith(BY_THE_CLOCK) for key in keys) else self._moment_of_death()
        if moment == "before":
            _die()
        if moment == "amid":
            some = sorted(upserts)[: len(upserts) // 2]
            await self._store.write(sorted(creates)[: (len(creates) + 1) // 2], {key: upserts[key] for key in some})
            _die()
        await self._store.write(creates, upserts, deletes)
        if moment == "after":
            _die()

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See StateStore."""
        return await self._store.read(keys)

    async def delete(self, keys: Sequence[str]) -> None:
        """See StateStore."""
        await self.write([], {}, keys)

    def _moment_of_death(self) -> str:
        if self._order.exists():
            self._moment, number = self._order.read_text().split()
            self._left = int(number)
            self._order.unlink()
        self._left -= 1
        return self._moment if self._left == 0 else ""


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
