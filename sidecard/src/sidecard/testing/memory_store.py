"""A state store in memory that decides as Dapr's do."""

import asyncio
from collections.abc import Mapping, Sequence

from sidecard.errors import StoreUnavailable, TaskConflict


class MemoryStore:
    """A transactional state store in memory. `down` makes it answer nothing, `lose_answers` lose its answers.

    Several engines may use a `shared` one at once. One that isn't `atomic` decides each key alone, as Redis does.
    """

    def __init__(self, *, shared: bool = False, atomic: bool = True) -> None:
        self.shared = shared
        self.atomic = atomic
        self.data: dict[str, bytes] = {}
        self.down = False
        self.lose_answers = 0
        self.writes = 0

    async def write(
        self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> None:
        """See tasks.store.StateStore."""
        await asyncio.sleep(0)
        self._answer()
        taken = {key for key, _ in creates if key in self.data}
        if taken and self.atomic:
            raise TaskConflict("a key exists already")
        self.data.update({key: value for key, value in creates if key not in taken} | dict(upserts))
        if taken:
            raise TaskConflict("a key exists already")
        for key in deletes:
            self.data.pop(key, None)
        self.writes += 1
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable("the answer was lost")

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See tasks.store.StateStore."""
        await asyncio.sleep(0)
        self._answer()
        return {key: self.data[key] for key in keys if key in self.data}

    async def delete(self, keys: Sequence[str]) -> None:
        """See tasks.store.StateStore."""
        self._answer()
        for key in keys:
            self.data.pop(key, None)

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")
