"""The lists of all owners in one slot: in pages as of its last checkpoint, and the lines that came since.

owners:{k}:{page}  whose lists there are, as JSON of (tenant, owner); the lists themselves: see index.py
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from sidecard.tasks.index import Line, Owner, OwnerList, Trim
from sidecard.tasks.store import StateStore
from sidecard.tasks.todo import Listed, TodoChange

MOST_LISTS = 512
"""Owners' lists kept in memory."""


@dataclass(slots=True)
class ListsChange:
    """Lists as a checkpoint will leave them, with what to write and to delete for it."""

    lists: dict[Owner, OwnerList]
    owners: TodoChange
    writes: dict[str, bytes]
    deletes: list[str]


class Lists:
    """What ListTasks reads of one slot, and retention: a list for each (tenant, owner)."""

    def __init__(self, store: StateStore, number: int, owners: Listed | None = None) -> None:
        self._store = store
        self._number = number
        self._owners = owners or Listed(f"owners:{number}")
        self._recent: dict[Owner, list[tuple[int, Line]]] = {}
        self._paged: OrderedDict[Owner, OwnerList] = OrderedDict()
        self.unpaged = 0
        """Lines that came since the last checkpoint."""

    @classmethod
    async def load(cls, store: StateStore, number: int, pages: int) -> "Lists":
        """Read whose lists there are, in so many pages; a list itself is read when it is asked for."""
        return cls(store, number, await Listed.load(store, f"owners:{number}", pages))

    def owners(self) -> list[Owner]:
        """Whose lists there are."""
        return [_owner(name) for name in self._owners.all]

    async def of(self, owner: Owner) -> OwnerList:
        """The list of one owner's tasks in this slot. Raises StoreUnavailable."""
        listing = await self.paged(owner)
        recent = self._since(owner, listing)
        return listing.stage(recent)[0] if recent else listing

    async def paged(self, owner: Owner) -> OwnerList:
        """The list of one owner's tasks as of the last checkpoint. Raises StoreUnavailable."""
        if owner not in self._paged:
            self._keep(owner, await OwnerList.load(self._store, self._number, *owner))
        self._paged.move_to_end(owner)
        return self._paged[owner]

    def oldest_unpaged(self, owner: Owner) -> int | None:
        """The time of the oldest of an owner's lines that are in entries only, until the next checkpoint."""
        return min((abs(line.at) for _, line in self._recent.get(owner, ()) if line.at), default=None)

    def take(self, n: int, lines: Mapping[Owner, list[Line]]) -> None:
        """These lines came with entry n of the slot."""
        for owner, more in lines.items():
            self._recent.setdefault(owner, []).extend((n, line) for line in more)
            self.unpaged += len(more)
        self._owners.take(self._new(lines))

    async def stage(self, n: int, lines: Mapping[Owner, list[Line]], trims: Mapping[Owner, Trim]) -> ListsChange:
        """What a checkpoint with entry n, which brings these lines, will make of the lists; they stay as they are.

        Reads lists not seen before. Raises StoreUnavailable.
        """
        after: dict[Owner, OwnerList] = {}
        writes: dict[str, bytes] = {}
        deletes: list[str] = []
        for owner in {*self._recent, *lines, *trims}:
            listing = await self.paged(owner)
            after[owner], pages = listing.stage([*self._since(owner, listing), *lines.get(owner, ())], n)
            writes |= pages
            if owner in trims:
                pages, gone = after[owner].trim(trims[owner])
                writes |= pages
                deletes += gone
        owners = self._owners.stage(self._new(lines))
        return ListsChange(after, owners, writes | owners.writes, deletes)

    def settle(self, change: ListsChange) -> None:
        """What was staged is stored."""
        for owner, listing in change.lists.items():
            listing.fresh.clear()
            self._keep(owner, listing)
        self._owners.settle(change.owners)
        self._recent, self.unpaged = {}, 0

    def _since(self, owner: Owner, listing: OwnerList) -> list[Line]:
        """A checkpoint that was not finished may have stored some of what the entries say."""
        return [line for n, line in self._recent.get(owner, ()) if n > listing.n]

    def _new(self, owners: Iterable[Owner]) -> dict[str, bool]:
        return self._owners.changed(dict.fromkeys(map(_name, owners), True))

    def _keep(self, owner: Owner, listing: OwnerList) -> None:
        self._paged[owner] = listing
        if len(self._paged) > MOST_LISTS:
            self._paged.popitem(last=False)


@lru_cache(MOST_LISTS)
def _name(owner: Owner) -> str:
    return json.dumps(owner)


def _owner(name: str) -> Owner:
    tenant, owner = json.loads(name)
    return tenant, owner
