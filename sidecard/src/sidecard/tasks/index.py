"""What a replica keeps beside its logs: the list that ListTasks reads, and the to-do list that a restart reads.

Both live in pages that only this replica writes, in the same transaction as the entries they speak of, so that they
never disagree with the logs on SQLite and PostgreSQL.
"""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import msgpack

from sidecard.tasks.store import StateStore

PAGE = 64
"""Lines, or task ids, in a page: what one change rewrites."""


@dataclass(frozen=True, slots=True)
class Line:
    """One change of a task's state, as its owner's list keeps it."""

    task_id: str
    context_id: str
    before: int
    state: int
    at: int


@dataclass(slots=True)
class OwnerList:
    """The tasks of one (tenant, owner), a line for each change of state, in order. The newest line of a task counts."""

    key: str
    size: int = 0
    tail: list[list[str | int]] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)

    @classmethod
    async def load(cls, store: StateStore, replica: str, tenant: str, owner: str) -> "OwnerList":
        """Read what is stored of it; an owner never seen has an empty list."""
        name = hashlib.sha256(msgpack.packb([tenant, owner])).hexdigest()[:32]
        opened = cls(key=f"index:{replica}:{name}")
        head = (await store.read([opened.key])).get(opened.key)
        if head:
            opened.size, counts = msgpack.unpackb(head, strict_map_key=False)
            opened.counts = Counter(counts)
            if opened.size % PAGE:
                opened.tail = await opened._page(store, opened.size // PAGE)
        return opened

    def stage(self, lines: Iterable[Line]) -> tuple["OwnerList", dict[str, bytes]]:
        """The list with these lines appended, and what to write for it. This list itself stays as it is."""
        after = OwnerList(self.key, self.size, list(self.tail), Counter(self.counts))
        writes: dict[str, bytes] = {}
        for line in lines:
            after.tail.append([line.task_id, line.context_id, line.state, line.at])
            after.counts[line.state] += 1
            if line.before:
                after.counts[line.before] -= 1
            writes[f"{self.key}:{after.size // PAGE}"] = msgpack.packb(after.tail)
            after.size += 1
            if after.size % PAGE == 0:
                after.tail = []
        writes[self.key] = msgpack.packb([after.size, dict(after.counts)])
        return after, writes

    async def newest_first(self, store: StateStore, before: int | None = None) -> AsyncIterator[tuple[int, Line]]:
        """(position, line) from the newest, or from just below position `before`, to the oldest."""
        end = self.size if before is None else min(before, self.size)
        page: list[list[str | int]] = []
        loaded = -1
        for position in range(end - 1, -1, -1):
            if position // PAGE != loaded:
                loaded = position // PAGE
                page = self.tail if loaded == self.size // PAGE else await self._page(store, loaded)
            task_id, context_id, state, at = page[position % PAGE]
            yield position, Line(str(task_id), str(context_id), 0, int(state), int(at))

    async def _page(self, store: StateStore, number: int) -> list[list[str | int]]:
        key = f"{self.key}:{number}"
        page: list[list[str | int]] = msgpack.unpackb((await store.read([key]))[key])
        return page


@dataclass(slots=True)
class Todo:
    """Every task that anything but a person must move on. Not a hint: a restart takes up exactly these."""

    key: str
    pages: list[frozenset[str]] = field(default_factory=list)

    @classmethod
    async def load(cls, store: StateStore, replica: str) -> "Todo":
        """Read this replica's list."""
        opened = cls(key=f"todo:{replica}")
        head = (await store.read([opened.key])).get(opened.key)
        if head:
            keys = [f"{opened.key}:{number}" for number in range(msgpack.unpackb(head))]
            stored = await store.read(keys)
            opened.pages = [frozenset(msgpack.unpackb(stored[key])) for key in keys]
        return opened

    def __contains__(self, task_id: str) -> bool:
        return any(task_id in page for page in self.pages)

    def all(self) -> list[str]:
        """The ids of all listed tasks."""
        return [task_id for page in self.pages for task_id in sorted(page)]

    def stage(self, changes: dict[str, bool]) -> tuple["Todo", dict[str, bytes]]:
        """The list with tasks put on (True) or taken off (False), and what to write for it."""
        after = Todo(self.key, list(self.pages))
        touched: set[int] = set()
        for task_id, listed in changes.items():
            at = next((number for number, page in enumerate(after.pages) if task_id in page), None)
            if listed and at is None:
                free = next((number for number, page in enumerate(after.pages) if len(page) < PAGE), None)
                if free is None:
                    free = len(after.pages)
                    after.pages.append(frozenset())
                after.pages[free] |= {task_id}
                touched.add(free)
            elif not listed and at is not None:
                after.pages[at] -= {task_id}
                touched.add(at)
        writes: dict[str, bytes] = {f"{self.key}:{n}": msgpack.packb(sorted(after.pages[n])) for n in touched}
        if len(after.pages) != len(self.pages):
            writes[self.key] = msgpack.packb(len(after.pages))
        return after, writes
