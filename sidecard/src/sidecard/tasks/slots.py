"""A replica's place in the store: a log of its own beside those of its tasks, holding its to-do list and its lists.

Slot k is the fold of `slot:{k}:1, 2, 3 …`. Each batch of the journal creates the next of these entries in the same
transaction as the task entries it speaks of, so the slot never disagrees with the logs. Whoever takes a slot over does
so by creating its next entry too: from then on whatever its former holder still sends is refused, however late.

slot:{k}:{n}              [FORMAT, nonce, holder or None, [[tenant, owner, lines] …], [ids on, ids off to-do list],
                          the same for the outbox, {key: tombstone}]
slot:{k}                  [FORMAT, n, holder, to-do pages, outbox pages, before, claims, owners pages]: all up to n is
                          in pages, and all up to before is deleted but the claims, [n, ms] each
todo:{k}:{page}           ids of tasks that anything but a person must move on
outbox:{k}:{page}         ids of tasks whose webhooks are to be told
index:{k}:{owner}:{page}  lines of one owner's list, index:{k}:{owner} its size and counts, and where it begins, and
                          index:{k}:{owner}:kept older lines that have not expired
owners:{k}:{page}         whose lists there are
beat:{k}                  the holder's sign of life, see replicas.py

A checkpoint moves what the entries say into the pages, and deletes the entries of the checkpoint before. Entries with
which a holder came stay for CLAIM_DAYS: they stand where a frozen former holder will try to write when it thaws.
"""

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from sidecard.errors import LogBroken
from sidecard.tasks.index import Line, OwnerList, Todo, TodoChange, Trim
from sidecard.tasks.loading import load
from sidecard.tasks.store import StateStore

FORMAT = 1
CHECKPOINT_ENTRIES = 64
CHECKPOINT_LINES = 256
"""What a checkpoint takes together; each line may touch a page of its own."""
MOST_LISTS = 512
"""Owners' lists kept in memory."""
READ_AHEAD = 32
CLAIM_DAYS = 7
SEALED = "!"
"""Begins a holder that only empties the slot: the replica named behind it takes its tasks over."""

Owner = tuple[str, str]
"""(tenant, owner)."""


def slot_key(number: int, n: int | None = None) -> str:
    """Key of a slot's head, or of its entry n."""
    return f"slot:{number}" if n is None else f"slot:{number}:{n}"


def beat_key(number: int) -> str:
    """Key of the sign of life of a slot's holder."""
    return f"beat:{number}"


@dataclass(slots=True)
class Sweep:
    """What expires together: tombstones by key, what of it is deleted, and where lists are to begin."""

    tombstones: dict[str, bytes] = field(default_factory=dict)
    deletes: Sequence[str] = ()
    trims: dict[Owner, Trim] = field(default_factory=dict)
    checkpoint: bool = False


class Listed:
    """A set of task ids, or names: in `all` as the slot's entries say, in pages as of the last checkpoint."""

    def __init__(self, key: str, pages: Todo | None = None) -> None:
        self._pages = pages or Todo(key)
        self._unpaged: dict[str, bool] = {}
        self.all = set(self._pages.all())

    @classmethod
    async def load(cls, store: StateStore, key: str, pages: int) -> "Listed":
        """Read its pages."""
        return cls(key, await Todo.load(store, key, pages))

    def changed(self, changes: Mapping[str, bool]) -> dict[str, bool]:
        """Those of these changes that are any."""
        return {task_id: on for task_id, on in changes.items() if on != (task_id in self.all)}

    def take(self, changes: Mapping[str, bool]) -> None:
        """Change the set."""
        self._unpaged.update(changes)
        for task_id, on in changes.items():
            (self.all.add if on else self.all.discard)(task_id)

    def stage(self, changes: Mapping[str, bool]) -> TodoChange:
        """The pages with these changes and all since the last checkpoint."""
        return self._pages.stage(self._unpaged | dict(changes))

    def settle(self, change: TodoChange) -> None:
        """What was staged is stored."""
        self._pages.settle(change)
        self._unpaged = {}


@dataclass(slots=True)
class _Checkpoint:
    lists: dict[Owner, OwnerList]
    todo: TodoChange
    outbox: TodoChange
    owners: TodoChange
    claims: list[tuple[int, int]]


@dataclass(slots=True)
class Staged:
    """The next entry of a slot and all that is written with it; frozen, so that a retry sends the very same."""

    key: str
    data: bytes
    holder: str | None
    lines: Mapping[Owner, list[Line]]
    todo: Mapping[str, bool]
    outbox: Mapping[str, bool]
    tombstones: Mapping[str, bytes]
    upserts: dict[str, bytes] = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)
    checkpoint: _Checkpoint | None = None


class Slot:
    """One slot as of entry `n`, held by `holder`: a replica "k.n" named for slot and entry, or "" when nobody does."""

    def __init__(self, store: StateStore, number: int) -> None:
        self.number = number
        self._store = store
        self._empty()

    def _empty(self) -> None:
        self.n = 0
        self.holder = ""
        self.todo = Listed(f"todo:{self.number}")
        self.outbox = Listed(f"outbox:{self.number}")
        self._owners = Listed(f"owners:{self.number}")
        self._checkpointed = 0
        self._before = 0
        self._claims: list[tuple[int, int]] = []
        self._recent: dict[Owner, list[tuple[int, Line]]] = {}
        self._lines = 0
        self._last_tombstones: Mapping[str, bytes] = {}
        self._last_lines: Mapping[Owner, list[Line]] = {}
        self._last_todo: Mapping[str, bool] = {}
        self._lists: OrderedDict[Owner, OwnerList] = OrderedDict()

    # -- reading ------------------------------------------------------------------------------------------------------

    @classmethod
    async def load(cls, store: StateStore, number: int) -> "Slot":
        """Read a slot; one that nobody ever held has `n` 0. Raises StoreUnavailable, LogBroken."""
        slot = cls(store, number)
        await slot._restart()
        await slot.catch_up()
        return slot

    async def catch_up(self) -> None:
        """Fold what has been written to this slot since. Raises StoreUnavailable, LogBroken."""
        while True:
            keys = [slot_key(self.number, self.n + i) for i in range(1, READ_AHEAD + 1)]
            stored = await self._store.read([slot_key(self.number), *keys])
            head = stored.get(slot_key(self.number))
            if head is not None and _unpack(head)[1] > self.n:
                await self._restart()  # a checkpoint has overtaken this reader
                continue
            for key in keys:
                if key not in stored:
                    return
                self._apply(stored[key])

    async def _restart(self) -> None:
        head = (await self._store.read([slot_key(self.number)])).get(slot_key(self.number))
        self._empty()
        if head is None:
            return
        _, self.n, self.holder, todo, outbox, self._before, claims, owners = _unpack(head)
        self._claims = [(n, at) for n, at in claims]
        self._checkpointed = self.n
        self.todo = await Listed.load(self._store, f"todo:{self.number}", todo)
        self.outbox = await Listed.load(self._store, f"outbox:{self.number}", outbox)
        self._owners = await Listed.load(self._store, f"owners:{self.number}", owners)
        last = (await self._store.read([slot_key(self.number, self.n)])).get(slot_key(self.number, self.n))
        if last is not None and not self._store.atomic:  # what it announced may not have come true yet
            self._announced(*_entry(last))

    def _apply(self, data: bytes) -> None:
        entry = _entry(data)
        before = self.holder
        self._take(*entry[:4])
        self._announced(*entry, before=before)

    def _announced(
        self,
        holder: str | None,
        lines: Mapping[Owner, list[Line]],
        todo: Mapping[str, bool],
        _: Mapping[str, bool],
        tombstones: Mapping[str, bytes],
        *,
        before: str = "",
    ) -> None:
        """Keep what the last batch announced until it is amended: by an entry under the holder of `before`."""
        if holder is None:
            self._last_lines, self._last_todo = lines, todo
        elif holder == before:
            self._last_lines, self._last_todo = {}, {}
        self._last_tombstones = tombstones

    def _take(
        self,
        holder: str | None,
        lines: Mapping[Owner, list[Line]],
        todo: Mapping[str, bool],
        outbox: Mapping[str, bool],
    ) -> None:
        self.n += 1
        if holder is not None:
            self.holder = holder
            self._claims = [*self._claims, (self.n, _now())]
        for owner, more in lines.items():
            self._recent.setdefault(owner, []).extend((self.n, line) for line in more)
            self._lines += len(more)
        self._owners.take(self._new_owners(lines))
        self.todo.take(todo)
        self.outbox.take(outbox)

    async def list_of(self, owner: Owner) -> OwnerList:
        """The list of one owner's tasks in this slot. Raises StoreUnavailable."""
        listing = await self.paged(owner)
        recent = self._unpaged(owner, listing)
        return listing.stage(recent)[0] if recent else listing

    def _unpaged(self, owner: Owner, listing: OwnerList) -> list[Line]:
        """A checkpoint that was not finished may have stored some of what the entries say."""
        return [line for n, line in self._recent.get(owner, ()) if n > listing.n]

    def owners(self) -> list[Owner]:
        """Whose lists there are."""
        return [_owner(name) for name in self._owners.all]

    def _new_owners(self, owners: Iterable[Owner]) -> dict[str, bool]:
        return self._owners.changed(dict.fromkeys(map(_name, owners), True))

    def oldest_unpaged(self, owner: Owner) -> int | None:
        """The time of the oldest of an owner's lines that are in entries only, until the next checkpoint."""
        return min((abs(line.at) for _, line in self._recent.get(owner, ()) if line.at), default=None)

    async def paged(self, owner: Owner) -> OwnerList:
        """The list of one owner's tasks as of the last checkpoint. Raises StoreUnavailable."""
        if owner not in self._lists:
            self._keep(owner, await OwnerList.load(self._store, self.number, *owner))
        self._lists.move_to_end(owner)
        return self._lists[owner]

    def _keep(self, owner: Owner, listing: OwnerList) -> None:
        self._lists[owner] = listing
        if len(self._lists) > MOST_LISTS:
            self._lists.popitem(last=False)

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether the next entry should be a checkpoint."""
        return self.n - self._checkpointed >= CHECKPOINT_ENTRIES or self._lines >= CHECKPOINT_LINES

    async def stage(
        self,
        lines: Mapping[Owner, list[Line]],
        todo: Mapping[str, bool],
        outbox: Mapping[str, bool] | None = None,
        *,
        holder: str | None = None,
        checkpoint: bool | None = None,
        sweep: Sweep | None = None,
    ) -> Staged:
        """The next entry; this slot stays as it is until `settle`. A checkpoint reads lists not seen before.

        Without a word on it, it is one when one is due or asked for by the sweep.

        Raises StoreUnavailable.
        """
        todo, outbox = self.todo.changed(todo), self.outbox.changed(outbox or {})
        lists = [[*owner, [line.pack() for line in more]] for owner, more in lines.items()]
        sweep = sweep or Sweep()
        tombstones = sweep.tombstones
        data = msgpack.packb([FORMAT, secrets.token_bytes(8), holder, lists, _ids(todo), _ids(outbox), tombstones])
        staged = Staged(slot_key(self.number, self.n + 1), data, holder, lines, todo, outbox, tombstones)
        staged.upserts |= tombstones
        if checkpoint is None:
            checkpoint = self.due or bool(sweep.trims) or sweep.checkpoint
        if checkpoint:
            await self._stage_checkpoint(staged, sweep.trims)
        staged.deletes += sweep.deletes
        return staged

    async def _stage_checkpoint(self, staged: Staged, trims: Mapping[Owner, Trim]) -> None:
        lists: dict[Owner, OwnerList] = {}
        for owner in {*self._recent, *staged.lines, *trims}:
            listing = await self.paged(owner)
            more = [*self._unpaged(owner, listing), *staged.lines.get(owner, ())]
            lists[owner], writes = listing.stage(more, self.n + 1)
            staged.upserts |= writes
            if owner in trims:
                writes, deletes = lists[owner].trim(trims[owner])
                staged.upserts |= writes
                staged.deletes += deletes
        owners = self._owners.stage(self._new_owners(staged.lines))
        todo, outbox = self.todo.stage(staged.todo), self.outbox.stage(staged.outbox)
        holder = self.holder if staged.holder is None else staged.holder
        now = _now()
        claims = [*self._claims, *([(self.n + 1, now)] if staged.holder is not None else [])]
        kept = [(n, at) for n, at in claims if now - at < CLAIM_DAYS * 86_400_000]
        head = [FORMAT, self.n + 1, holder, todo.count, outbox.count, self._checkpointed, kept, owners.count]
        staged.upserts |= todo.writes | outbox.writes | owners.writes | {slot_key(self.number): msgpack.packb(head)}
        old = {*range(self._before + 1, self._checkpointed + 1), *(n for n, _ in claims)} - {n for n, _ in kept}
        staged.deletes += [slot_key(self.number, n) for n in sorted(old)]
        staged.checkpoint = _Checkpoint(lists, todo, outbox, owners, kept)

    async def claim(self, holder: str, *, emptied: bool = False, beat: bytes | None = None) -> None:
        """Become this slot's holder, as it is known: its next entry decides. When `emptied`, nothing is left to do.

        Raises TaskConflict when somebody else has written to it, StoreUnavailable when the outcome is not known.
        """
        todo: dict[str, bool] = {}
        if self._last_tombstones and not self._store.atomic:  # announced, so it comes true, whoever is next
            await self._store.write([], self._last_tombstones)
        outbox: dict[str, bool] = {}
        if emptied:
            todo, outbox = dict.fromkeys(self.todo.all, False), dict.fromkeys(self.outbox.all, False)
        staged = await self.stage({}, todo, outbox, holder=holder, checkpoint=self._store.atomic)
        beats = {} if beat is None else {beat_key(self.number): beat}
        if self._store.atomic:
            await self._store.write([(staged.key, staged.data)], staged.upserts | beats, staged.deletes)
        else:
            head = {} if self.n else {slot_key(self.number): msgpack.packb([FORMAT, 0, "", 0, 0, 0, [], 0])}
            await self._store.write([(staged.key, staged.data)], {})
            await self._store.write([], head | beats)
        self.settle(staged)

    async def amend(self) -> None:
        """Take back what the last entry announced and did not come true; only the holder does, and first of all.

        What a former holder still stores of that afterwards counts for nothing: it finds the slot claimed, and
        acknowledges nothing. Where a write is all or nothing, everything announced has come true.

        Raises TaskConflict when somebody else has written to it, StoreUnavailable when the outcome is not known.
        """
        if self._store.atomic or not (self._last_lines or self._last_todo):
            return
        lines, todo = await self._amendments()
        staged = await self.stage(lines, todo, holder=self.holder, checkpoint=False)
        await self._store.write([(staged.key, staged.data)], {})
        self.settle(staged)

    async def _amendments(self) -> tuple[dict[Owner, list[Line]], dict[str, bool]]:
        """What takes back those of the last entry's announcements that did not come true, where keys are written alone.

        Each entry is written before what it announces, one batch after the other, so only the last can be wrong.
        """
        lines: dict[Owner, list[Line]] = {}
        todo: dict[str, bool] = {}
        announced = [(owner, line) for owner, more in self._last_lines.items() for line in more]
        for task_id in {line.task_id for _, line in announced} | set(self._last_todo):
            folded = await load(self._store, task_id)
            at = folded.task.status.timestamp.ToMilliseconds() if folded else 0
            todo[task_id] = folded is not None and folded.must_move
            for owner, line in announced:
                if line.task_id == task_id and line.at > at:
                    lines.setdefault(owner, []).append(line.undone())
        return lines, todo

    def settle(self, staged: Staged) -> None:
        """What was staged is stored."""
        before = self.holder
        self._take(staged.holder, staged.lines, staged.todo, staged.outbox)
        self._announced(staged.holder, staged.lines, staged.todo, staged.outbox, {}, before=before)
        if staged.checkpoint is None:
            return
        for owner, listing in staged.checkpoint.lists.items():
            listing.fresh.clear()
            self._keep(owner, listing)
        self.todo.settle(staged.checkpoint.todo)
        self.outbox.settle(staged.checkpoint.outbox)
        self._owners.settle(staged.checkpoint.owners)
        self._before, self._checkpointed, self._claims = self._checkpointed, self.n, staged.checkpoint.claims
        self._recent, self._lines = {}, 0


def _entry(
    data: bytes,
) -> tuple[str | None, dict[Owner, list[Line]], dict[str, bool], dict[str, bool], dict[str, bytes]]:
    """Of a slot's entry: holder, lines, changes of the to-do list and the outbox, tombstones."""
    _, _, holder, lists, todo, outbox, tombstones = _unpack(data)
    lines = {(tenant, owner): [Line(*line) for line in lines] for tenant, owner, lines in lists}
    return holder, lines, _changes(todo), _changes(outbox), tombstones


def _now() -> int:
    return time.time_ns() // 1_000_000


def _name(owner: Owner) -> str:
    return json.dumps(owner)


def _owner(name: str) -> Owner:
    tenant, owner = json.loads(name)
    return tenant, owner


def _ids(changes: Mapping[str, bool]) -> list[list[str]]:
    return [[t for t, on in changes.items() if on], [t for t, on in changes.items() if not on]]


def _changes(ids: list[list[str]]) -> dict[str, bool]:
    return dict.fromkeys(ids[0], True) | dict.fromkeys(ids[1], False)


def _unpack(data: bytes) -> list[Any]:
    unpacked: list[Any] = msgpack.unpackb(data)
    if unpacked[0] != FORMAT:
        raise LogBroken(f"a slot has format {unpacked[0]}, this version reads {FORMAT}: upgrade this replica")
    return unpacked
