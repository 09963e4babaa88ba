"""Who else runs this agent on the same store: signs of life, slots of the dead, and knocks on each other's doors.

beat:{k}        "{replica} {count}" while the holder of slot k lives, LEFT when it went, FREE when nothing is left to do
knock:{k}:{j}   [replica, [[number, task id] …]]: what the holder of slot j has lately appended to tasks of slot k's
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.seals import Seals
from sidecard.tasks.patience import patiently
from sidecard.tasks.slot_entry import beat_key, slot_key
from sidecard.tasks.slots import SEALED, Slot
from sidecard.tasks.store import StateStore

log = logging.getLogger("sidecard.tasks")

BEAT_SECONDS = 0.5
DEAD_SECONDS = 3.0
"""How long a replica shows no sign of life, while the store answers, until its tasks are taken over."""
KNOCK_SECONDS = 30.0
"""How long a knock stays; replicas look every BEAT_SECONDS."""
LEFT = b"left"
FREE = b"free"
FEW = 4


@dataclass(slots=True)
class _Seen:
    """A slot's sign of life, and since when it has not changed, by this process's monotonic clock."""

    beat: bytes
    since: float


class Replicas:
    """This replica among the others. A store that isn't shared has one replica, and what it finds there is its own.

    `adopt` takes over what a replica that is gone had to do, given its slot and whether it died; `look` is told of
    tasks that others have appended to; `deposed` that others have taken this replica for dead. `seals` go on what is
    written of the audit.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        adopt: Callable[[Slot, bool], Awaitable[None]],
        look: Callable[[Collection[str]], None],
        deposed: Callable[[], None],
        seals: Seals | None = None,
    ) -> None:
        self._store = store
        self._seals = seals
        self._adopt = adopt
        self._look = look
        self._deposed = deposed
        self._slot: Slot | None = None
        self._former: set[str] = set()
        self._count = 0
        self._shown = self._steady = -math.inf
        self._seen: dict[int, _Seen] = {}
        self._views: dict[int, Slot] = {}
        self._heard: dict[int, tuple[str, int]] = {}
        self._knocks: dict[int, deque[tuple[float, int, str]]] = {}
        self._taking_over: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- this replica -------------------------------------------------------------------------------------------------

    async def join(self) -> tuple[Slot, bool]:
        """Take a slot that nobody holds, or make one; also whether its former holder died. Raises StoreUnavailable."""
        while True:
            beats = await self._beats()
            number = next(
                (k for k, beat in beats.items() if beat in (FREE, LEFT) or not self._store.shared), len(beats)
            )
            slot = await Slot.load(self._store, number, self._seals)
            died = beats.get(number) not in (FREE, LEFT)
            holder = f"{number}.{slot.n + 1}"
            began = time.monotonic()
            try:
                await slot.claim(holder, beat=f"{holder} 0".encode())
                await slot.amend()
            except TaskConflict:
                continue  # another has just taken it
            except StoreUnavailable:
                slot = await patiently(partial(Slot.load, self._store, number, self._seals))
                if slot.holder != holder:
                    continue
                try:
                    await slot.amend()
                except (TaskConflict, StoreUnavailable):
                    continue
            self._shown, self._steady = began, -math.inf  # under this name it is not known yet
            if self._slot is not None:
                self._former.add(self._slot.holder)
            self._slot = slot
            now = time.monotonic()
            self._seen = {k: _Seen(beat, now) for k, beat in beats.items() if k != number}
            return slot, died

    def start(self) -> None:
        """Watch the others, and show them signs of life, from now on."""
        if self._store.shared:
            self._spawn(self._run(), "replicas")

    async def stop(self, *, leaving: bool) -> None:
        """Stop watching; `leaving`, tell the others that what is on the to-do list is theirs now."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if leaving and self._slot is not None:
            try:
                await self._slot.amend()
                beat = LEFT if self._slot.todo.all or self._slot.outbox.all else FREE
                await self._slot.claim("", beat=beat)
            except (TaskConflict, StoreUnavailable) as error:
                log.warning("replica %s could not say that it leaves: %s", self._slot.holder, error)

    # -- the others ---------------------------------------------------------------------------------------------------

    def alive(self, replica: str) -> bool:
        """Whether another replica seems to be alive. One that was never seen counts as dead."""
        seen = self._seen.get(_slot_of(replica))
        if replica in self._former or seen is None or seen.beat.partition(b" ")[0] != replica.encode():
            return False
        return time.monotonic() - seen.since < DEAD_SECONDS

    async def bury(self, replica: str) -> None:
        """Find out whether another replica has lost its name: it then counts as dead. Raises StoreUnavailable.

        One that thaws may show life under a name that it has lost, before it knows.
        """
        if self.alive(replica) and (await Slot.load(self._store, _slot_of(replica))).holder != replica:
            self._former.add(replica)

    def unquestioned(self, since: float) -> bool:
        """Whether nobody can have taken this replica for dead at any moment since then (`time.monotonic`).

        Its last sign of life is fresh, and there was none that came late: a replica that thaws shows life again, and
        may have been taken for dead all the same.
        """
        return self._steady <= since and time.monotonic() - self._shown < DEAD_SECONDS / 2

    def steady(self) -> bool:
        """Whether nobody can have taken this replica for dead, nor be about to, for what they saw some time ago."""
        return self.unquestioned(time.monotonic() - DEAD_SECONDS)

    async def knock(self, replica: str, task_id: str) -> None:
        """Make another replica look at a task soon. Raises StoreUnavailable."""
        number = _slot_of(replica)
        knocks = self._knocks.setdefault(number, deque())
        now = time.monotonic()
        while knocks and now - knocks[0][0] > KNOCK_SECONDS:
            knocks.popleft()
        self._count += 1
        knocks.append((now, self._count, task_id))
        if self._slot is not None:
            told = msgpack.packb([self._slot.holder, [[n, t] for _, n, t in knocks]])
            await self._store.write([], {_knock_key(number, self._slot.number): told})

    def left_over(self) -> list[int]:
        """Slots that nobody holds and that it is this replica's turn to look after: the first one alive does."""
        if self._slot is None or not self._store.shared:
            return []
        now = time.monotonic()
        before = [seen for k, seen in self._seen.items() if k < self._slot.number and seen.beat not in (FREE, LEFT)]
        if any(now - seen.since < DEAD_SECONDS for seen in before):
            return []
        return [k for k, seen in self._seen.items() if seen.beat == FREE]

    async def slots(self) -> list[Slot]:
        """Every slot as it is now, this replica's first. Raises StoreUnavailable."""
        assert self._slot is not None  # noqa: S101 -- joined before anything is asked
        others = await self._beats() if self._store.shared else ()
        for number in [k for k in others if k != self._slot.number]:
            if number not in self._views:
                self._views[number] = await Slot.load(self._store, number)
            else:
                await self._views[number].catch_up()
        return [self._slot, *(self._views[k] for k in sorted(self._views))]

    # -- watching -----------------------------------------------------------------------------------------------------

    async def _beats(self) -> dict[int, bytes]:
        """The sign of life of every slot there is."""
        beats: dict[int, bytes] = {}
        while True:
            numbers = range(len(beats), len(beats) + FEW)
            stored = await self._store.read([key for k in numbers for key in (beat_key(k), slot_key(k))])
            for k in numbers:
                if slot_key(k) not in stored:
                    return beats
                beats[k] = stored.get(beat_key(k), LEFT)

    async def _run(self) -> None:
        watched = True
        while True:
            began = time.monotonic()
            try:
                await self._beat()
                await self._watch(fresh=not watched)
                watched = True
            except StoreUnavailable as error:
                if watched:
                    log.warning("can't see the other replicas: %s", error)
                watched = False  # nobody is taken for dead for what could not be seen
            except Exception:
                log.exception("can't see the other replicas")
                watched = False
            await asyncio.sleep(max(0.0, BEAT_SECONDS - (time.monotonic() - began)))

    async def _beat(self) -> None:
        assert self._slot is not None  # noqa: S101 -- joined before it runs
        self._count += 1
        began = time.monotonic()
        await self._store.write([], {beat_key(self._slot.number): f"{self._slot.holder} {self._count}".encode()})
        ended = time.monotonic()
        if ended - self._shown > DEAD_SECONDS / 2:
            self._steady = ended
        self._shown = began

    async def _watch(self, *, fresh: bool) -> None:
        slot = self._slot
        assert slot is not None  # noqa: S101
        n = slot.n
        beats = await self._beats()
        others = [k for k in beats if k != slot.number]
        knocks = await self._store.read([slot_key(slot.number, n + 1), *(_knock_key(slot.number, k) for k in others)])
        taken = knocks.pop(slot_key(slot.number, n + 1), None)
        if taken is not None and slot.n == n and await self._is_taken(slot):
            self._deposed()
            return
        self._hear(knocks)
        now = time.monotonic()
        for k in others:
            seen = self._seen.get(k)
            if seen is None or seen.beat != beats[k] or fresh:
                seen = self._seen[k] = _Seen(beats[k], now)
            gone = seen.beat == LEFT or (seen.beat != FREE and now - seen.since > DEAD_SECONDS)
            if gone and k not in self._taking_over:
                self._taking_over.add(k)
                self._spawn(self._take_over(k, died=seen.beat != LEFT), f"take over slot {k}")

    async def _is_taken(self, slot: Slot) -> bool:
        """Whether somebody else has written to this replica's slot; its own entry may just be on its way back."""
        fresh = await Slot.load(self._store, slot.number)
        return fresh.holder != slot.holder

    def _hear(self, knocks: dict[str, bytes]) -> None:
        """Look at the tasks for which others have knocked since."""
        tasks: list[str] = []
        for told in knocks.values():
            by, news = msgpack.unpackb(told)
            number = _slot_of(by)
            known, last = self._heard.get(number, ("", 0))
            tasks += [task_id for n, task_id in news if known != by or n > last]
            if news:
                self._heard[number] = (by, news[-1][0])
        if tasks:
            self._look(dict.fromkeys(tasks).keys())

    async def _take_over(self, number: int, *, died: bool) -> None:
        """Take over what a dead replica had to do. Survivors race for its slot; one wins, the others see that."""
        try:
            slot = await Slot.load(self._store, number, self._seals)
            sealed_by = slot.holder.removeprefix(SEALED) if slot.holder.startswith(SEALED) else ""
            if sealed_by and self.alive(sealed_by):
                self._seen[number].since = time.monotonic()
                return
            assert self._slot is not None  # noqa: S101
            mine = f"{SEALED}{self._slot.holder}"
            if slot.holder != mine:  # else this is another try
                key = beat_key(number)
                beat = (await self._store.read([key])).get(key, LEFT)
                if number not in self._seen or beat != self._seen[number].beat:
                    # It shows life again. One that does so only from now on makes this claim fail by what it writes.
                    self._seen[number] = _Seen(beat, time.monotonic())
                    return
                former = slot.holder
                await slot.claim(mine)
                self._former.add(former)
            await slot.amend()
            if slot.todo.all or slot.outbox.all:
                log.warning("replica %s is gone; taking over %d tasks", number, len(slot.todo.all | slot.outbox.all))
                await self._adopt(slot, died)
            await slot.claim("", emptied=True, beat=FREE)
            self._seen[number] = _Seen(FREE, time.monotonic())
        except (TaskConflict, StoreUnavailable) as error:
            log.info("slot %d is not taken over now: %s", number, error)
            if number in self._seen:
                self._seen[number].since = time.monotonic()
        finally:
            self._taking_over.discard(number)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _slot_of(replica: str) -> int:
    number = replica.partition(".")[0]
    return int(number) if number.isdigit() else -1


def _knock_key(to: int, by: int) -> str:
    return f"knock:{to}:{by}"
