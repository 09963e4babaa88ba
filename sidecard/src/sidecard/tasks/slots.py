"""A replica's place in the store: a log of its own beside those of its tasks, holding its to-do list and its lists.

Slot k is the fold of `slot:{k}:1, 2, 3 …`. Each batch of the journal creates the next of these entries in the same
transaction as the task entries it speaks of, so the slot never disagrees with the logs. Whoever takes a slot over does
so by creating its next entry too: from then on whatever its former holder still sends is refused, however late.

slot:{k}:{n}  what a batch adds, slot:{k} what the last checkpoint left: see slot_entry.py
beat:{k}      the holder's sign of life, see replicas.py

A checkpoint moves what the entries say into pages (see todo.py, lists.py, trail.py), and deletes the entries of the
checkpoint before. Entries with which a holder came stay for CLAIM_DAYS: they stand where a frozen former holder will
try to write when it thaws.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sidecard.seals import Seals
from sidecard.tasks.act import Act
from sidecard.tasks.announced import Announced
from sidecard.tasks.index import Line, Owner, Trim
from sidecard.tasks.lists import Lists, ListsChange
from sidecard.tasks.slot_entry import Announcement, SlotEntry, SlotHead, beat_key, slot_key
from sidecard.tasks.store import StateStore
from sidecard.tasks.todo import Listed, TodoChange
from sidecard.tasks.trail import Mark, Page, Trail, TrailChange, audit_key

CHECKPOINT_ENTRIES = 64
CHECKPOINT_LINES = 256
CHECKPOINT_RECORDS = 1_024
"""What a checkpoint takes together; each line may touch a page of its own, the audit's records fill one."""
READ_AHEAD = 32
CLAIM_DAYS = 7
SEALED = "!"
"""Begins a holder that only empties the slot: the replica named behind it takes its tasks over."""


@dataclass(slots=True)
class Sweep:
    """What expires together: tombstones by key, what of it is deleted, where lists are to begin.

    Of the audit's trail all pages up to `forget` are deleted.
    """

    tombstones: dict[str, bytes] = field(default_factory=dict)
    deletes: Sequence[str] = ()
    trims: dict[Owner, Trim] = field(default_factory=dict)
    checkpoint: bool = False
    forget: int = 0


@dataclass(slots=True)
class _Checkpoint:
    lists: ListsChange
    todo: TodoChange
    outbox: TodoChange
    claims: list[tuple[int, int]]
    trail: TrailChange


@dataclass(slots=True)
class Staged:
    """The next entry of a slot and all that is written with it; frozen, so that a retry sends the very same."""

    key: str
    data: bytes
    entry: SlotEntry
    upserts: dict[str, bytes]
    deletes: list[str] = field(default_factory=list)
    checkpoint: _Checkpoint | None = None


class Slot:
    """One slot as of entry `n`, held by `holder`: a replica "k.n" named for slot and entry, or "" when nobody does."""

    def __init__(self, store: StateStore, number: int, seals: Seals | None = None) -> None:
        """`seals` are put on the audit's pages that are written from here."""
        self.number = number
        self.seals = seals
        self._store = store
        self._empty()

    def _empty(self) -> None:
        self.n = 0
        self.holder = ""
        self.todo = Listed(f"todo:{self.number}")
        self.outbox = Listed(f"outbox:{self.number}")
        self.lists = Lists(self._store, self.number)
        self.trail = Trail(self.number, seals=self.seals)
        self._checkpointed = 0
        self._before = 0
        self._claims: list[tuple[int, int]] = []
        self._announced = Announced()

    # -- reading ------------------------------------------------------------------------------------------------------

    @classmethod
    async def load(cls, store: StateStore, number: int, seals: Seals | None = None) -> "Slot":
        """Read a slot; one that nobody ever held has `n` 0. Raises StoreUnavailable, LogBroken."""
        slot = cls(store, number, seals)
        await slot._restart()
        await slot.catch_up()
        return slot

    async def catch_up(self) -> None:
        """Fold what has been written to this slot since. Raises StoreUnavailable, LogBroken."""
        while True:
            keys = [slot_key(self.number, self.n + i) for i in range(1, READ_AHEAD + 1)]
            stored = await self._store.read([slot_key(self.number), *keys])
            head = stored.get(slot_key(self.number))
            if head is not None and SlotHead.unpack(head).n > self.n:
                await self._restart()  # a checkpoint has overtaken this reader
                continue
            for key in keys:
                if key not in stored:
                    return
                self._take(SlotEntry.unpack(stored[key]))

    async def _restart(self) -> None:
        stored = (await self._store.read([slot_key(self.number)])).get(slot_key(self.number))
        self._empty()
        if stored is None:
            return
        head = SlotHead.unpack(stored)
        self.n = self._checkpointed = head.n
        self.holder, self._before, self._claims = head.holder, head.before, head.claims
        self.todo = await Listed.load(self._store, f"todo:{self.number}", head.todo)
        self.outbox = await Listed.load(self._store, f"outbox:{self.number}", head.outbox)
        self.lists = await Lists.load(self._store, self.number, head.owners)
        self.trail = await self._load_trail(head.audit)
        last = (await self._store.read([slot_key(self.number, self.n)])).get(slot_key(self.number, self.n))
        if last is not None and not self._store.atomic:  # what it announced may not have come true yet
            self._announced.take(SlotEntry.unpack(last))

    async def _load_trail(self, mark: Mark) -> Trail:
        """The trail as of a checkpoint; who is to seal what comes next looks at the last seal."""
        key = audit_key(self.number, mark.last)
        data = (await self._store.read([key])).get(key) if self.seals and mark.last >= mark.first else None
        return Trail(self.number, mark, self.seals, Page.unpack(data).seal if data else "")

    def _take(self, entry: SlotEntry) -> None:
        self.n += 1
        self._announced.take(entry, before=self.holder)
        if entry.holder is not None:
            self.holder = entry.holder
            self._claims = [*self._claims, (self.n, _now())]
        self.lists.take(self.n, entry.lines)
        self.todo.take(entry.todo)
        self.outbox.take(entry.outbox)
        self.trail.take(entry.link)

    def announces(self, task_id: str, data: bytes) -> bool:
        """Whether its last entry announced this entry of a task, which may come true, or be taken back, any moment."""
        return self._announced.names(task_id, data)

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether the next entry should be a checkpoint."""
        if self.n - self._checkpointed >= CHECKPOINT_ENTRIES or self.lists.unpaged >= CHECKPOINT_LINES:
            return True
        return len(self.trail.recent) >= CHECKPOINT_RECORDS or self.trail.due

    async def stage(
        self,
        lines: Mapping[Owner, list[Line]],
        todo: Mapping[str, bool],
        outbox: Mapping[str, bool] | None = None,
        *,
        holder: str | None = None,
        checkpoint: bool | None = None,
        sweep: Sweep | None = None,
        acts: Sequence[Act] = (),
        void: Sequence[int] = (),
        announced: Sequence[Announcement] = (),
    ) -> Staged:
        """The next entry; this slot stays as it is until `settle`. A checkpoint reads lists not seen before.

        `acts` go into the audit's trail; those that went into it under the numbers in `void` are taken back. What is
        `announced` is written after this.

        Without a word on it, it is one when one is due or asked for by the sweep.

        Raises StoreUnavailable.
        """
        sweep = sweep or Sweep()
        todo, outbox = self.todo.changed(todo), self.outbox.changed(outbox or {})
        link = self.trail.link(self.holder, acts, void)
        entry = SlotEntry(holder, lines, todo, outbox, sweep.tombstones, link, announced)
        staged = Staged(slot_key(self.number, self.n + 1), entry.pack(), entry, dict(sweep.tombstones))
        if checkpoint is None:
            checkpoint = self.due or bool(sweep.trims) or sweep.checkpoint or bool(sweep.forget)
        if checkpoint:
            await self._stage_checkpoint(staged, sweep)
        staged.deletes += sweep.deletes
        return staged

    async def _stage_checkpoint(self, staged: Staged, sweep: Sweep) -> None:
        entry = staged.entry
        lists = await self.lists.stage(self.n + 1, entry.lines, sweep.trims)
        trail = self.trail.stage(entry.link, sweep.forget)
        todo, outbox = self.todo.stage(entry.todo), self.outbox.stage(entry.outbox)
        holder = self.holder if entry.holder is None else entry.holder
        now = _now()
        claims = [*self._claims, *([(self.n + 1, now)] if entry.holder is not None else [])]
        kept = [(n, at) for n, at in claims if now - at < CLAIM_DAYS * 86_400_000]
        head = SlotHead(
            self.n + 1, holder, todo.count, outbox.count, self._checkpointed, kept, lists.owners.count, trail.mark
        )
        staged.upserts |= lists.writes | todo.writes | outbox.writes | trail.writes
        staged.upserts[slot_key(self.number)] = head.pack()
        old = {*range(self._before + 1, self._checkpointed + 1), *(n for n, _ in claims)} - {n for n, _ in kept}
        staged.deletes += [*lists.deletes, *trail.deletes, *(slot_key(self.number, n) for n in sorted(old))]
        staged.checkpoint = _Checkpoint(lists, todo, outbox, kept, trail)

    async def claim(self, holder: str, *, emptied: bool = False, beat: bytes | None = None) -> None:
        """Become this slot's holder, as it is known: its next entry decides. When `emptied`, nothing is left to do.

        Raises TaskConflict when somebody else has written to it, StoreUnavailable when the outcome is not known.
        """
        if self._announced.tombstones and not self._store.atomic:  # so they come true, whoever is next
            await self._store.write([], self._announced.tombstones)
        todo: dict[str, bool] = {}
        outbox: dict[str, bool] = {}
        if emptied:
            todo, outbox = dict.fromkeys(self.todo.all, False), dict.fromkeys(self.outbox.all, False)
        staged = await self.stage({}, todo, outbox, holder=holder, checkpoint=self._store.atomic)
        beats = {} if beat is None else {beat_key(self.number): beat}
        if self._store.atomic:
            await self._store.write([(staged.key, staged.data)], staged.upserts | beats, staged.deletes)
        else:
            head = {} if self.n else {slot_key(self.number): SlotHead().pack()}
            await self._store.write([(staged.key, staged.data)], {})
            await self._store.write([], head | beats)
        self.settle(staged)

    async def amend(self) -> None:
        """Take back what the last entry announced and did not come true; only the holder does, and first of all.

        What a former holder still stores of that afterwards is not acknowledged, since it finds the slot claimed, and
        is its own to list (see late.py); as it is stored then, the audit keeps who did it. Where a write is all or
        nothing, everything announced has come true.

        Raises TaskConflict when somebody else has written to it, StoreUnavailable when the outcome is not known.
        """
        if self._store.atomic or not self._announced:
            return
        lines, todo = self._announced.undone(await self._announced.lost(self._store))
        staged = await self.stage(lines, todo, holder=self.holder, checkpoint=False)
        await self._store.write([(staged.key, staged.data)], {})
        self.settle(staged)

    async def take_back(self, lost: Collection[str], outbox: Mapping[str, bool], void: Sequence[int]) -> Staged:
        """The next entry, as in `stage`, after one of which others were faster with what it announced of these tasks.

        Raises StoreUnavailable.
        """
        lines, todo = self._announced.undone(lost)
        return await self.stage(lines, todo, outbox, holder=self.holder, void=void)

    def settle(self, staged: Staged) -> None:
        """What was staged is stored."""
        self._take(staged.entry)
        self._announced.tombstones = {}  # these are stored, too
        if staged.checkpoint is None:
            return
        self.lists.settle(staged.checkpoint.lists)
        self.todo.settle(staged.checkpoint.todo)
        self.outbox.settle(staged.checkpoint.outbox)
        self.trail.settle(staged.checkpoint.trail)
        self._before, self._checkpointed, self._claims = self._checkpointed, self.n, staged.checkpoint.claims


def _now() -> int:
    return time.time_ns() // 1_000_000
