"""Those who read a task's events as they are stored."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from a2a.types import TaskStatusUpdateEvent

from sidecard.tasks.entry import Record
from sidecard.tasks.events import Event, event_of, events_since, task_of
from sidecard.tasks.pending import size_of
from sidecard.tasks.state import FoldedTask, Place
from sidecard.tasks.states import INTERRUPTED
from sidecard.tasks.store import StateStore

Until = Callable[[Callable[[], None]], contextlib.AbstractContextManager[None]]
"""Something that may end the following of a task from outside: within it, the function that does is called when due."""
MOST_EVENTS = 20_000
MOST_BYTES = 16_000_000
"""What may wait for a slow reader before it is cut. Events are shared by all followers of a task."""


def for_ever(_stop: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """Nothing from outside ends it."""
    return contextlib.nullcontext()


class Follower:
    """A queue of stored events. A reader that falls too far behind is cut, after what waits for it already."""

    def __init__(self) -> None:
        self._events: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._over = False
        self._news = asyncio.Event()

    def tell(self, event: Event, size: int) -> bool:
        """Add an event of about `size` bytes; False when the follower is cut."""
        if len(self._events) >= MOST_EVENTS or self._bytes + size > MOST_BYTES:
            self.cut()
        if not self._over:
            self._events.append((event, size))
            self._bytes += size
            self._news.set()
        return not self._over

    def cut(self) -> None:
        """Let the stream end after the events that wait."""
        self._over = True
        self._news.set()

    def stop(self) -> None:
        """Let the stream end now, whatever waits."""
        self._events.clear()
        self.cut()

    async def events(self) -> AsyncIterator[Event]:
        """What is told, in order, until the stream is cut."""
        while True:
            while self._events:
                event, size = self._events.popleft()
                self._bytes -= size
                yield event
            if self._over:
                return
            self._news.clear()
            await self._news.wait()


class Followers:
    """All who read one task's events."""

    def __init__(self, store: StateStore, folded: FoldedTask, meta: Mapping[str, str]) -> None:
        self._store = store
        self._folded = folded
        self._meta = meta
        self._all: set[Follower] = set()
        self._over = False

    def __len__(self) -> int:
        return len(self._all)

    async def follow(
        self, after: Place | None, left: Callable[[], None], *, beyond: bool, until: Until = for_ever
    ) -> AsyncIterator[Event]:
        """See live.Live.follow; `left` is told when a reader goes."""
        try:
            with self._joined() as follower, until(follower.stop):
                waits = self._folded.state in INTERRUPTED and not beyond
                if waits or self._folded.ended or self._over:
                    follower.cut()
                if after is None:
                    yield task_of(self._folded)
                else:
                    async for past in events_since(self._store, self._meta, after, self._folded.n):
                        yield past
                async for event in follower.events():
                    yield event
                    if isinstance(event, TaskStatusUpdateEvent) and event.status.state in INTERRUPTED:
                        return
        finally:
            left()

    @contextlib.contextmanager
    def _joined(self) -> Iterator[Follower]:
        """One more, who is told what happens from now on."""
        follower = Follower()
        self._all.add(follower)
        try:
            yield follower
        finally:
            self._all.discard(follower)

    def tell(self, record: Record, place: Place) -> None:
        """Tell the event, if it is one, that a stored record at this place of the log is."""
        if event := event_of(record, self._meta, place):
            size = size_of(record)
            self._all -= {follower for follower in self._all if not follower.tell(event, size)}

    def cut(self) -> None:
        """Nothing more happens here, now or later."""
        self._over = True
        for follower in self._all:
            follower.cut()
