"""The audit of an app that has no tasks: what is done there is stored in one write with what it changes.

Its records stand in the trail of slot 0, as those of an agent's replica do, and are read and checked as they are. No
replica holds that slot: whoever creates its next entry has gone first, and the others look again.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.act import Act, now
from sidecard.tasks.sightings import FLUSH_SECONDS, Sightings
from sidecard.tasks.slot_entry import SlotHead, slot_key
from sidecard.tasks.slots import Slot, Staged, Sweep
from sidecard.tasks.store import StateStore
from sidecard.tasks.trail import Page, audit_key

log = logging.getLogger("sidecard")

SLOT = 0
ATTEMPTS = 50
"""More than there are operators and replicas that write in the same instant; each round of a race has a winner."""
PAGES_AT_ONCE = 32


class SwappingStore(StateStore, Protocol):
    """A store that also overwrites a key only as long as it is what was read."""

    async def recognise(self) -> None:
        """Find out what kind of store it is. Raises ConfigurationError, StoreUnavailable."""

    async def write(
        self,
        creates: Sequence[tuple[str, bytes]],
        upserts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
        *,
        swaps: Mapping[str, tuple[bytes, str]] | None = None,
    ) -> None:
        """As of any store; `swaps` are written where a key's ETag is still this one, "" for a key that is absent."""

    async def close(self) -> None:
        """Close the connection to it."""


@dataclass(frozen=True, slots=True)
class Deed:
    """An act and what it changes: keys overwritten, keys overwritten unless somebody else has meanwhile, keys deleted.

    A swap has the new value and the ETag that was read, "" where there was no such key.
    """

    act: Act
    upserts: Mapping[str, bytes] = field(default_factory=dict)
    swaps: Mapping[str, tuple[bytes, str]] = field(default_factory=dict)
    deletes: Sequence[str] = ()


class Ledger:
    """Where deeds are stored, and refusals soon after. A record is kept for `keep_days`, 0 is for ever.

    On a store that decides key by key (Redis) an act is recorded before it is done; one that comes to nothing is taken
    back by the next write, or stands there as done if the process dies in between.
    """

    def __init__(self, open_store: Callable[[], SwappingStore], *, keep_days: float = 0.0) -> None:
        """`open_store` is called when there first is something to write."""
        self._open_store = open_store
        self._opened: SwappingStore | None = None
        self._keep_ms = round(keep_days * 86_400_000)
        self._slot: Slot | None = None
        self._void: list[int] = []
        self._writing = asyncio.Lock()
        self._sightings = Sightings()
        self._flushing: asyncio.TimerHandle | None = None
        self._flushes: set[asyncio.Task[None]] = set()

    @property
    def _store(self) -> SwappingStore:
        if self._opened is None:
            self._opened = self._open_store()
        return self._opened

    async def do(self, decide: Callable[[], Awaitable[Deed | None]]) -> bool:
        """Do what `decide` makes of what it reads, which it is asked again whenever somebody else went first.

        False when it decides that there is nothing to do. Raises StoreUnavailable, and what it raises.
        """
        for attempt in range(ATTEMPTS):
            async with self._writing:
                slot = await self._current()
                deed = await decide()
                if deed is None:
                    return False
                if await self._write(slot, [deed.act], deed):
                    return True
            await asyncio.sleep(random.uniform(0, 0.005 * min(attempt + 1, 10)))  # noqa: S311 -- spreads retries
        raise StoreUnavailable("This could not be written down, others kept writing: try again.")

    def refused(self, act: Act) -> None:
        """Record an act that came to nothing, within a second or so: counted by kind, and bounded."""
        self._sightings.add(act)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_soon)

    async def flush(self) -> None:
        """Write what waits. Raises StoreUnavailable, and it waits on."""
        while self._sightings:
            acts = self._sightings.take()
            try:
                async with self._writing:
                    while not await self._write(await self._current(), acts):
                        log.debug("another replica was first")
            except BaseException:
                self._sightings.put_back(acts)
                raise

    async def forget(self) -> None:
        """Delete the pages of the trail that are older than what is kept. Raises StoreUnavailable."""
        if not self._keep_ms:
            return
        async with self._writing:
            slot = await self._current()
            old, forget = now() - self._keep_ms, 0
            pages = slot.trail.pages[:PAGES_AT_ONCE]
            stored = await self._store.read([audit_key(SLOT, page) for page in pages]) if pages else {}
            for page in pages:
                data = stored.get(audit_key(SLOT, page))
                if data is not None and Page.unpack(data).newest > old:
                    break
                forget = page
            if forget:
                await self._write(slot, [], sweep=Sweep(forget=forget))

    async def close(self) -> None:
        """Write what waits, if the store is there."""
        if self._flushing is not None:
            self._flushing.cancel()
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self.flush()
        if self._opened is not None:
            await self._opened.close()

    def _flush_soon(self) -> None:
        self._flushing = None
        task = asyncio.create_task(self._flush(), name="ledger")
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _flush(self) -> None:
        try:
            await self.flush()
        except StoreUnavailable as error:
            log.warning("what was refused is not in the audit yet: %s", error)
            if self._flushing is None:
                self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_soon)

    async def _current(self) -> Slot:
        """The slot as it is now."""
        if self._slot is None:
            await self._store.recognise()
            self._slot = await Slot.load(self._store, SLOT)
        else:
            await self._slot.catch_up()
        return self._slot

    async def _write(
        self, slot: Slot, acts: Sequence[Act], deed: Deed | None = None, sweep: Sweep | None = None
    ) -> bool:
        """Write the slot's next entry with these acts, and what the deed changes. False when somebody went first."""
        staged = await slot.stage({}, {}, acts=acts, void=self._void, sweep=sweep)
        created, changed = [(staged.key, staged.data)], deed or Deed(Act(""))
        upserts = self._first(slot) | staged.upserts
        try:
            if self._store.atomic:
                deletes = [*staged.deletes, *changed.deletes]
                await self._store.write(created, {**upserts, **changed.upserts}, deletes, swaps=changed.swaps)
            else:
                await self._store.write(created, {})
        except (TaskConflict, StoreUnavailable):
            stored = await self._store.read([staged.key])
            if stored.get(staged.key) != staged.data:
                return False
        if self._store.atomic:
            slot.settle(staged)
            self._void = []
            return True
        return await self._follow(slot, staged, upserts, changed)

    def _first(self, slot: Slot) -> dict[str, bytes]:
        """The head by which a trail is found, with the first entry."""
        return {} if slot.n else {slot_key(SLOT): SlotHead().pack()}

    async def _follow(self, slot: Slot, staged: Staged, upserts: dict[str, bytes], changed: Deed) -> bool:
        """What comes with an entry where keys are decided one by one: pages, the head, what is over; then the deed."""
        head = upserts.pop(slot_key(SLOT), None)
        await self._store.write([], upserts)
        if head is not None:
            await self._store.write([], {slot_key(SLOT): head})
        if staged.deletes:
            await self._store.delete(staged.deletes)
        number = slot.trail.number + 1
        slot.settle(staged)
        self._void = []
        try:
            await self._store.write([], changed.upserts, changed.deletes, swaps=changed.swaps)
        except TaskConflict:
            self._void = [number]
            return False
        return True
