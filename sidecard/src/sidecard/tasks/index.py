"""One owner's list of tasks in one slot, as ListTasks reads it. Only the slot's holder writes it, at a checkpoint.

index:{k}:{owner}:{page}  its lines
index:{k}:{owner}         its size and counts, and where it begins
index:{k}:{owner}:kept    older lines that have not expired
"""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace

import msgpack

from sidecard.errors import LogBroken
from sidecard.tasks.store import StateStore

PAGE = 64
"""Lines in a page: what one change rewrites."""

Owner = tuple[str, str]
"""(tenant, owner)."""


@dataclass(frozen=True, slots=True)
class Line:
    """A task's latest status as of some entry, as its owner's list keeps it; `before` was its state.

    One whose `at` is 0 takes an expired task out of the counts, and is in no list. One whose `at` is negative takes a
    line back that did not come true.
    """

    task_id: str
    context_id: str
    before: int
    state: int
    at: int

    def pack(self) -> list[str | int]:
        """Its fields, in order."""
        return [self.task_id, self.context_id, self.before, self.state, self.at]

    def undone(self) -> "Line":
        """The line that takes this one back from the counts; it is passed over in reading."""
        return Line(self.task_id, self.context_id, self.state, self.before, -self.at)

    def expired(self) -> "Line":
        """The line that takes its task out of the counts for good."""
        return Line(self.task_id, self.context_id, self.state, 0, 0)


@dataclass(slots=True)
class OwnerList:
    """The tasks of one (tenant, owner), a line for each entry with a status, in order. The newest of a task counts.

    Positions: 0 … `erased` (nothing is left of these) … `first` (expired; tombstones stand) … `size`. A slot's own
    counts may be negative, since tasks change hands: only the sum over all slots counts tasks.
    """

    key: str
    size: int = 0
    tail: list[list[str | int]] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    fresh: dict[int, list[list[str | int]]] = field(default_factory=dict)
    """Full pages that may not be stored yet."""
    n: int = 0
    """The slot's entry with which this was stored."""
    first: int = 0
    """Where the list begins: what is below has expired, but for the lines in `kept`, each with its position."""
    erased: int = 0
    """Nothing is left in the store of what expired below this."""
    kept: list[tuple[int, Line]] = field(default_factory=list)

    @classmethod
    async def load(cls, store: StateStore, slot: int, tenant: str, owner: str) -> "OwnerList":
        """Read what is stored of it; an owner never seen has an empty list."""
        name = hashlib.sha256(msgpack.packb([tenant, owner])).hexdigest()[:32]
        opened = cls(key=f"index:{slot}:{name}")
        await opened._head(store)
        if opened.size % PAGE:  # what is behind belongs to a checkpoint that was not finished
            opened.tail = (await opened._page(store, opened.size // PAGE))[: opened.size % PAGE]
        return opened

    async def _head(self, store: StateStore) -> None:
        stored = await store.read([self.key, self._kept_key])
        if head := stored.get(self.key):
            self.size, counts, self.n, self.first, self.erased = msgpack.unpackb(head, strict_map_key=False)
            self.counts = Counter(counts)
        if kept := stored.get(self._kept_key):
            self.kept = [(position, Line(*line)) for position, *line in msgpack.unpackb(kept)]

    @property
    def _kept_key(self) -> str:
        return f"{self.key}:kept"

    def stage(self, lines: Iterable[Line], n: int = 0) -> tuple["OwnerList", dict[str, bytes]]:
        """The list with these lines appended as of entry n, and what to write for it. This list stays as it is."""
        after = replace(self, tail=list(self.tail), counts=Counter(self.counts), fresh=dict(self.fresh), n=n)
        pages: dict[int, list[list[str | int]]] = {}
        for line in sorted(lines, key=lambda line: abs(line.at)):
            if line.state:
                after.counts[line.state] += 1
            if line.before:
                after.counts[line.before] -= 1
            if not line.at:
                continue
            pages[after.size // PAGE] = after.tail
            after.tail.append([line.task_id, line.context_id, line.state, line.at])
            after.size += 1
            if after.size % PAGE == 0:
                after.fresh[after.size // PAGE - 1] = after.tail
                after.tail = []
        writes: dict[str, bytes] = {f"{self.key}:{number}": msgpack.packb(page) for number, page in pages.items()}
        writes[self.key] = after._packed_head()
        return after, writes

    def _packed_head(self) -> bytes:
        head: bytes = msgpack.packb([self.size, dict(self.counts), self.n, self.first, self.erased])
        return head

    def trim(self, trim: "Trim") -> tuple[dict[str, bytes], list[str]]:
        """Let this list, just staged, begin elsewhere: what to write, and which pages to delete."""
        pages = range(max(0, self.erased // PAGE - 1), trim.erased // PAGE)  # the last time may have been cut short
        self.first, self.erased = trim.first, trim.erased
        writes: dict[str, bytes] = {}
        if self.tail and self.erased // PAGE == self.size // PAGE:
            self.tail[: self.erased % PAGE] = [["", "", 0, 0]] * (self.erased % PAGE)
            writes[f"{self.key}:{self.erased // PAGE}"] = msgpack.packb(self.tail)
        deletes = [f"{self.key}:{number}" for number in pages]
        if trim.kept != self.kept:
            self.kept = list(trim.kept)
            if self.kept:
                writes[self._kept_key] = msgpack.packb([[position, *line.pack()] for position, line in self.kept])
            else:
                deletes.append(self._kept_key)
        return writes | {self.key: self._packed_head()}, deletes

    async def chunk(self, store: StateStore, start: int, end: int) -> list[tuple[int, Line]]:
        """(position, line) from `start` on, oldest first, to the end of its page or of the range."""
        if start >= end:
            return []
        number = start // PAGE
        page = self.tail if number == self.size // PAGE else await self._page(store, number)
        end = min(end, (number + 1) * PAGE)
        return [(position, _line(page[position % PAGE])) for position in range(start, end)]

    async def took_back(self, store: StateStore, line: Line) -> bool:
        """Whether the last word on a line that may have been in this list is that it did not come true.

        Reads the list up to that, or all of it. Raises StoreUnavailable, LogBroken.
        """
        for number in range(self.size // PAGE, self.first // PAGE - 1, -1):
            for _, each in reversed(await self.chunk(store, max(number * PAGE, self.first), self.size)):
                if (each.task_id, abs(each.at)) == (line.task_id, line.at):
                    return each.at < 0
        return False

    async def newest_first(self, store: StateStore, before: int | None = None) -> AsyncIterator[tuple[int, Line]]:
        """(position, line) from the newest, or from just below position `before`, to the oldest."""
        end = self.size if before is None else min(before, self.size)
        page: list[list[str | int]] = []
        loaded = -1
        undone: set[tuple[str, int]] = set()
        now = self
        for position in range(end - 1, self.first - 1, -1):
            if position // PAGE != loaded:
                loaded = position // PAGE
                try:
                    page = self.tail if loaded == self.size // PAGE else await self._page(store, loaded)
                except LogBroken:
                    now = OwnerList(self.key)
                    await now._head(store)
                    if position < now.first:  # it has expired meanwhile
                        break
                    raise
            line = _line(page[position % PAGE])
            if line.at < 0:
                undone.add((line.task_id, -line.at))
            elif (line.task_id, line.at) in undone:
                undone.discard((line.task_id, line.at))  # an older one of the same time may have come true
            else:
                yield position, line
        for position, line in reversed(now.kept):
            if position < min(end, now.first):
                yield position, line

    async def _page(self, store: StateStore, number: int) -> list[list[str | int]]:
        if number in self.fresh:
            return self.fresh[number]
        key = f"{self.key}:{number}"
        stored = (await store.read([key])).get(key)
        if stored is None:
            raise LogBroken(f"page {number} of a list of tasks is gone: the state store lost writes")
        page: list[list[str | int]] = msgpack.unpackb(stored)
        return page


def _line(packed: list[str | int]) -> Line:
    task_id, context_id, state, at = packed
    return Line(str(task_id), str(context_id), 0, int(state), int(at))


@dataclass(frozen=True, slots=True)
class Trim:
    """Where an owner's list is to begin; see OwnerList's fields."""

    first: int
    erased: int
    kept: list[tuple[int, Line]]
