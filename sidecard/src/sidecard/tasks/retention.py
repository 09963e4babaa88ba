"""Forgets tasks that ended long ago, and what the audit has of long ago, in the background: a page at a time.

A task expires when `keep` has passed since it ended: its first entry becomes a tombstone, in the batch that takes it
out of its owner's list and counts. From then on nobody finds it. When the deduplication window has passed too,
everything else that belongs to it is deleted, and the tombstone last. Its entries outlive it for that while so that
whoever was reading them just then reads the whole log, and appends nothing to half of it.

The audit is kept for as long as it is told, whatever becomes of the tasks that it speaks of.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from sidecard.errors import LogBroken, StoreUnavailable, TaskConflict
from sidecard.tasks.cursor import child_key, cursor_key, topic_key
from sidecard.tasks.entry import Entry, log_key
from sidecard.tasks.index import Line, Owner, OwnerList, Trim
from sidecard.tasks.journal import Journal
from sidecard.tasks.loading import catch_up
from sidecard.tasks.slots import SEALED, Slot, Sweep
from sidecard.tasks.state import FoldedTask
from sidecard.tasks.states import TERMINAL
from sidecard.tasks.store import StateStore
from sidecard.tasks.tombstone import Tombstone
from sidecard.tasks.trail import Page, audit_key

log = logging.getLogger("sidecard.tasks")

FIRST_SECONDS = 30.0
IDLE_SECONDS = 10.0
REST = 4
"""After a page it rests so many times as long as that took."""
LEFT_OVER_SECONDS = 6 * 3_600.0
"""How often the lists of replicas that are gone are looked at."""
LOOK_AGAIN_MS = 3_600_000
"""How often tasks are looked at that are older than others and have not ended."""
AT_ONCE = 8
MOST_DELETES = 256
AUDIT_PAGES = 32
"""Pages of the audit looked at together."""
NEVER = 2**62
CURSORS = {"push": cursor_key, "orphan": child_key}
"""Which records come with a receiver, and the keys of these receivers' cursors."""

Lines = list[tuple[int, Line]]
"""Lines with their positions."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How long tasks are kept after their end, their messages remembered after that, and the audit is kept.

    0 days are for ever.
    """

    days: float = 30.0
    deduplication_hours: float = 24.0
    audit_days: float = 365.0

    @property
    def task_ms(self) -> int:
        """How long a task is kept, in milliseconds."""
        return round(self.days * 86_400_000)

    @property
    def tombstone_ms(self) -> int:
        """How long its tombstone is, after that."""
        return round(self.deduplication_hours * 3_600_000)

    @property
    def audit_ms(self) -> int:
        """How long a record of the audit is."""
        return round(self.audit_days * 86_400_000)


class Retention:
    """Expires the tasks that the lists of one slot name, which nobody else does; now and then those of slots left over.

    It costs what expires: an owner whose oldest task is young is not looked at. What is found must be repeatable at any
    point: lists begin later only when what they named is gone.
    """

    def __init__(
        self,
        journal: Journal,
        slots: Callable[[], Awaitable[list[Slot]]],
        keep: Keep,
        clock: Callable[[], int],
        left_over: Callable[[], list[int]] = list,
    ) -> None:
        """`journal` writes to the slot, `slots` are all there are, `clock` gives UTC in milliseconds.

        `left_over` says which slots nobody holds, if it is this replica that looks after them.
        """
        self._journal = journal
        self._store: StateStore = journal.store
        self._slots = slots
        self._keep = keep
        self._clock = clock
        self._left_over = left_over
        self._due: dict[Owner, int] = {}
        self._look_again: dict[Owner, int] = {}
        self._audit_due = 0

    async def run(self) -> None:
        """Look after what is due, for ever."""
        if not (self._keep.days or self._keep.audit_days):
            return
        await asyncio.sleep(FIRST_SECONDS)
        others = 0.0
        while True:
            began = time.monotonic()
            more = False
            try:
                if began >= others:
                    others = began + LEFT_OVER_SECONDS
                    await self.step_in()
                more = await self.step()
            except LogBroken as error:
                log.error("some tasks can't expire: %s", error)
            except (StoreUnavailable, TaskConflict) as error:
                log.info("nothing expires now: %s", error)
            except Exception:
                log.exception("nothing expires now")
            await asyncio.sleep(REST * (time.monotonic() - began) if more else IDLE_SECONDS)

    async def step(self) -> bool:
        """Look at a page or so of the owner that is due longest; whether somebody was due.

        Raises StoreUnavailable, LogBroken.
        """
        now, slot = self._clock(), self._journal.slot
        if slot.trail.due:
            await self._journal.sweep(Sweep(checkpoint=True))
        if self._keep.audit_days and self._audit_due <= now:
            self._audit_due = now + LOOK_AGAIN_MS
            self._audit_due = await self._visit_audit(slot, now - self._keep.audit_ms)
            return True
        if not self._keep.days:
            return False
        owner = min(slot.lists.owners(), key=lambda owner: self._due.get(owner, 0), default=None)
        if owner is None or self._due.get(owner, 0) > now:
            return False
        self._due[owner] = now + LOOK_AGAIN_MS  # should this fail, others have their turn
        self._due[owner] = await self._visit(slot, owner, now)
        return True

    async def step_in(self) -> None:
        """Do the same for slots left over, each as its holder for that while: who joins there is not kept waiting.

        Raises StoreUnavailable, LogBroken, TaskConflict.
        """
        for number in self._left_over():
            slot = await Slot.load(self._store, number, self._journal.slot.seals)
            await slot.claim(f"{SEALED}{self._journal.replica}")
            journal = Journal(self._store)
            journal.start(slot)
            try:
                substitute = Retention(journal, self._slots, self._keep, self._clock)
                began = time.monotonic()
                while await substitute.step():
                    await asyncio.sleep(REST * (time.monotonic() - began))
                    began = time.monotonic()
            finally:
                await journal.stop()
            await slot.claim("")

    async def _visit(self, slot: Slot, owner: Owner, now: int) -> int:
        """Go on with one owner's list; returns when to come again."""
        old = now - self._keep.task_ms
        unpaged = slot.lists.oldest_unpaged(owner)
        if unpaged is not None and unpaged <= old:
            await self._journal.sweep(Sweep(checkpoint=True))
        listing = await slot.lists.paged(owner)
        looks = bool(listing.kept) and self._look_again.get(owner, 0) <= now
        kept = listing.kept if looks else []
        erased, next_erased = await self._erase(listing, kept, now)
        found = await listing.chunk(self._store, listing.first, listing.size)
        due = list(takewhile(lambda each: abs(each[1].at) <= old, found))
        expiring, standing = await self._judge([*kept, *due], erased, now)
        trim = Trim(listing.first + len(due), erased, standing if looks else [*listing.kept, *standing])
        if looks:
            self._look_again[owner] = now + LOOK_AGAIN_MS
        if expiring or trim != Trim(listing.first, listing.erased, listing.kept):
            tombstones = {log_key(line.task_id, 1): tombstone.pack() for line, tombstone in expiring}
            lines = [line.expired() for line, _ in expiring]
            await self._journal.sweep(Sweep(tombstones, trims={owner: trim}), {owner: lines})
        if found and len(due) == len(found):
            return now
        oldest = abs(found[len(due)][1].at) if found else now if unpaged is None else unpaged
        come_again = min(oldest + self._keep.task_ms, next_erased)
        return min(come_again, self._look_again.setdefault(owner, now + LOOK_AGAIN_MS)) if trim.kept else come_again

    async def _visit_audit(self, slot: Slot, old: int) -> int:
        """Forget the oldest pages of the audit if they are old; returns when to come again."""
        newest = slot.trail.newest()
        if newest is not None and newest <= old:
            await self._journal.sweep(Sweep(checkpoint=True))
        pages = slot.trail.pages[:AUDIT_PAGES]
        keys = [audit_key(slot.number, page) for page in pages]
        stored = await self._store.read(keys) if keys else {}
        forget = come_again = 0
        for page, key in zip(pages, keys, strict=True):
            written = Page.unpack(stored[key]).newest if key in stored else 0
            if written > old:
                come_again = written + self._keep.audit_ms
                break
            forget = page
        if forget:
            await self._journal.sweep(Sweep(forget=forget))
        if come_again:
            return come_again
        return self._clock() + (0 if len(pages) == AUDIT_PAGES else LOOK_AGAIN_MS)

    # -- expiring -----------------------------------------------------------------------------------------------------

    async def _judge(self, lines: Lines, erased: int, now: int) -> tuple[list[tuple[Line, Tombstone]], Lines]:
        """Which tasks expire now, and which of these lines must be kept when the list begins behind them."""
        stored = await self._first_entries(line for _, line in lines)
        unburied = [task_id for task_id, first in stored.items() if Tombstone.of(first) is None]
        read: dict[str, _Read] = {}
        for start in range(0, len(unburied), AT_ONCE):
            some = unburied[start : start + AT_ONCE]
            read |= dict(zip(some, await asyncio.gather(*map(self._read, some)), strict=True))
        expiring: list[tuple[Line, Tombstone]] = []
        made: dict[str, Tombstone] = {}
        undone = Counter((line.task_id, -line.at) for _, line in lines if line.at < 0)
        kept: Lines = []
        busy: set[str] | None = None
        for position, line in lines:
            first = stored.get(line.task_id)
            if first is None or line.at < 0:
                continue
            if undone[line.task_id, line.at]:  # it stands in another list, which expires it
                undone[line.task_id, line.at] -= 1
                continue
            tombstone = made.get(line.task_id) or Tombstone.of(first)
            if tombstone is None:
                task = read[line.task_id]
                if not task.broken and task.status_at != line.at:
                    continue  # a newer line speaks of it, here or in another slot
                if busy is None:
                    busy = {task_id for slot in await self._slots() for task_id in slot.todo.all | slot.outbox.all}
                if not task.ended or task.at > now - self._keep.task_ms or line.task_id in busy:
                    kept.append((position, line))
                    continue
                tombstone = Tombstone(now, task.status_at, task.digest, task.n, tuple(task.beside))
                made[line.task_id] = tombstone
                expiring.append((line, tombstone))
            if position < erased and tombstone.status_at == line.at:
                kept.append((position, line))  # nobody passes here any more
        return expiring, kept

    async def _read(self, task_id: str) -> "_Read":
        """Every entry of a task, for the keys that it ever had."""
        task, folded = _Read(), FoldedTask()
        task.beside[topic_key(task_id)] = None  # there, where the topic was given up, whether or not there is one now

        def take(entry: Entry) -> None:
            folded.apply(entry)
            for record in entry.records:
                if record[0] in CURSORS:
                    task.beside[CURSORS[record[0]](task_id, record[1])] = None

        try:
            await catch_up(self._store, task_id, folded, take)
        except LogBroken as error:
            log.error("task %s can't expire: %s", task_id, error)
            task.broken = True
            return task
        task.n, task.at, task.ended = folded.n, folded.at, folded.ended
        task.status_at = folded.task.status.timestamp.ToMilliseconds()
        task.digest = next(iter(folded.messages.values()), "")
        return task

    async def _first_entries(self, lines: Iterable[Line]) -> dict[str, bytes]:
        """Entry 1 of each task that has one."""
        keys = {log_key(line.task_id, 1): line.task_id for line in lines}
        stored = await self._store.read(list(keys)) if keys else {}
        return {keys[key]: data for key, data in stored.items()}

    # -- erasing ------------------------------------------------------------------------------------------------------

    async def _erase(self, listing: OwnerList, kept: Lines, now: int) -> tuple[int, int]:
        """Delete what is left of tasks whose tombstones have stood long enough.

        Returns up to where nothing is left, and when to come again.
        """
        passed = await listing.chunk(self._store, listing.erased, listing.first)
        ended = [(position, line) for position, line in [*kept, *passed] if line.state in TERMINAL]
        stored = await self._first_entries(line for _, line in ended)
        known = {position for position, _ in listing.kept}
        over: dict[str, Tombstone] = {}
        erased, come_again = listing.erased + len(passed), now if passed else NEVER
        for position, line in ended:
            tombstone = Tombstone.of(stored.get(line.task_id))
            if tombstone is None or tombstone.status_at != line.at:
                continue
            until = tombstone.at + self._keep.tombstone_ms
            if until <= now:
                over[line.task_id] = tombstone
            elif position not in known:
                erased, come_again = position, until
                break
        rest = [key for task_id, tombstone in over.items() for key in tombstone.rest(task_id)]
        for start in range(0, len(rest), MOST_DELETES):
            await self._journal.sweep(Sweep(deletes=rest[start : start + MOST_DELETES]))
        if over:  # last, and before the lists forget them: what says that there is something to erase
            await self._journal.sweep(Sweep(deletes=[log_key(task_id, 1) for task_id in over]))
        return erased, come_again


@dataclass(slots=True)
class _Read:
    """What a task's tombstone says, read from its log; `broken` when that can't be read."""

    n: int = 0
    at: int = 0
    status_at: int = 0
    ended: bool = False
    digest: str = ""
    beside: dict[str, None] = field(default_factory=dict)
    broken: bool = False
