"""Those who read a task's events as they are stored."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator

from a2a.types import Task as A2ATask
from a2a.types import TaskArtifactUpdateEvent, TaskStatusUpdateEvent

Event = A2ATask | TaskStatusUpdateEvent | TaskArtifactUpdateEvent
MOST_EVENTS = 20_000
MOST_BYTES = 16_000_000
"""What may wait for a slow reader before it is cut. Events are shared by all followers of a task."""


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

    def __init__(self) -> None:
        self._all: set[Follower] = set()

    def __len__(self) -> int:
        return len(self._all)

    @contextlib.contextmanager
    def joined(self) -> Iterator[Follower]:
        """One more, who is told what happens from now on."""
        follower = Follower()
        self._all.add(follower)
        try:
            yield follower
        finally:
            self._all.discard(follower)

    def tell(self, event: Event, size: int) -> None:
        """Tell a stored event of about `size` bytes."""
        self._all -= {follower for follower in self._all if not follower.tell(event, size)}

    def cut(self) -> None:
        """Nothing more happens here."""
        for follower in self._all:
            follower.cut()
