"""A store that is only read: what replays a task, or shows one to an operator, must not change it."""

from collections.abc import Mapping, Sequence

from sidecard.errors import SidecardError
from sidecard.tasks.store import StateStore


class WriteRefused(SidecardError):
    """Something tried to write where only reading is meant."""


class ReadOnly:
    """A store that reads through to another one and refuses to write."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.shared, self.atomic = store.shared, store.atomic

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See store.StateStore."""
        return await self._store.read(keys)

    async def write(
        self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> None:
        """Raises WriteRefused."""
        raise WriteRefused("this only reads; nothing was written")

    async def delete(self, keys: Sequence[str]) -> None:
        """Raises WriteRefused."""
        raise WriteRefused("this only reads; nothing was deleted")
