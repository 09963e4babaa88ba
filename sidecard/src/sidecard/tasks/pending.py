"""What one task has yet to store, and who waits for that."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from sidecard.errors import SidecardError, StoreUnavailable
from sidecard.tasks.act import Act
from sidecard.tasks.chunk import Chunk
from sidecard.tasks.entry import Record

ENTRY_RECORDS = 1_000
ENTRY_BYTES = 1_000_000
"""What fills an entry, or makes a fast stream wait for the store; one append is never divided."""
MOST_RECORD_BYTES = 8_000_000
"""What one append may hold: it must fit into one message to the sidecar, with room for the lists beside it."""


class TooLarge(SidecardError):
    """What a skill gives out, or a step returns, does not fit into a log entry."""


@dataclass(slots=True)
class Appended:
    """Records to be stored together, about `size` bytes, and the act that they come from.

    `answers` is the open question that they are decided upon, "" for none; None where that does not matter. A `chunk`,
    always the last of the records, may stand for several that were appended.
    """

    records: list[Record]
    size: int
    act: Act | None
    answers: str | None
    chunk: Chunk | None
    stands_for: int = 1

    def drop(self) -> None:
        """Store nothing of it."""
        self.records, self.act = [], None


class Pending:
    """Appends in order. Each is stored whole; several may share an entry, and chunks of one text become one."""

    def __init__(self) -> None:
        self._appends: deque[Appended] = deque()
        self._bytes = 0
        self._unstored = 0
        self._under_way = 0
        self._appended = 0
        self._stored = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __len__(self) -> int:
        return len(self._appends)

    def __iter__(self) -> Iterator[Appended]:
        return iter(self._appends)

    @property
    def full(self) -> bool:
        """Whether so much waits to be stored that whoever makes more should wait too."""
        return self._bytes > ENTRY_BYTES or self._unstored >= ENTRY_RECORDS

    @property
    def gathers(self) -> bool:
        """Whether it may wait for more: a text is being made, faster than it is stored, and nobody waits for it."""
        chunk = self._appends[-1].chunk if self._appends else None
        return chunk is not None and chunk.open and not (self._waiters or self.full)

    def check(self, records: tuple[Record, ...]) -> int:
        """About how many bytes these records take. Raises TooLarge."""
        size = sum(map(size_of, records))
        if size > MOST_RECORD_BYTES:
            raise TooLarge(f"{size} bytes do not fit into a task, which takes {MOST_RECORD_BYTES} at once; use a URL")
        return size

    def add(self, records: tuple[Record, ...], size: int, act: Act | None = None, answers: str | None = None) -> None:
        """Take records that were checked; see Appended."""
        self._bytes += size
        self._unstored += 1
        chunk = Chunk.of(records[-1]) if act is None else None
        if chunk is not None and len(records) == 1 and self._join(chunk, size):
            return
        self._appends.append(Appended(list(records), size, act, answers, chunk))
        self._appended += 1

    def _join(self, chunk: Chunk, size: int) -> bool:
        """Let a chunk join the one before it, if that is not being written."""
        last = self._appends[-1] if len(self._appends) > self._under_way else None
        if last is None or last.chunk is None or not last.chunk.join(chunk):
            return False
        last.size += size
        last.stands_for += 1
        return True

    def next_entry(self) -> tuple[int, list[Record], list[Act]]:
        """How many appends go into the next entry, their records, and the acts that these come from."""
        records: list[Record] = []
        acts: list[Act] = []
        count = size = 0
        for append in self._appends:
            size += append.size
            if records and (size > ENTRY_BYTES or len(records) + len(append.records) > ENTRY_RECORDS):
                break
            count += 1
            if append.chunk is not None:
                append.chunk.write()
            records.extend(append.records)
            if append.act is not None:
                acts.append(append.act)
        self._under_way = count
        return count, records, acts

    def stored(self, count: int) -> None:
        """The first appends are stored."""
        for _ in range(count):
            append = self._appends.popleft()
            self._bytes -= append.size
            self._unstored -= append.stands_for
        self._stored += count
        self._under_way = 0

    def skip_dropped(self) -> None:
        """Let those go on whose appends were dropped, where nothing before them waits; others share an entry.

        Nothing is being written when this is called.
        """
        self._under_way = 0
        while self._appends and not self._appends[0].records:
            self.stored(1)
        self.wake()

    def wake(self) -> None:
        """Let those go on who wait for what is stored now."""
        while self._waiters and self._waiters[0][0] <= self._stored:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def waiter(self) -> asyncio.Future[None] | None:
        """What ends once everything that waits now is stored, or raises what `give_up` is told; None for nothing."""
        if self._stored == self._appended:
            return None
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._appended, waiter))
        return waiter

    def give_up(self, error: Exception) -> None:
        """Nothing more is stored here."""
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()
        self._appends.clear()
        self._bytes = self._unstored = 0


def outcome_unknown(waiter: asyncio.Future[None]) -> None:
    """Let somebody go on who has waited too long."""
    if not waiter.done():
        waiter.set_exception(
            StoreUnavailable(
                "the state store does not answer, so whether this was stored is not known; send the same message again"
            )
        )


def size_of(record: Record) -> int:
    """About how many bytes a record takes."""
    size = 32
    for item in record:
        kind = type(item)
        if kind is bytes or kind is str:
            size += len(item)
        elif kind is list:
            size += size_of(item)
        else:
            size += 8
    return size
