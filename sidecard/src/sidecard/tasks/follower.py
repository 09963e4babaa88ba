"""Those who read a task's events as they are stored."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator

from a2a.types import Artifact, TaskArtifactUpdateEvent, TaskStatusUpdateEvent
from a2a.types import Task as A2ATask

from sidecard.tasks.entry import Record
from sidecard.tasks.pending import size_of
from sidecard.tasks.state import status_of

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

    def __init__(self, task_id: str, context_id: str) -> None:
        self._task_id = task_id
        self._context_id = context_id
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

    def tell(self, record: Record) -> None:
        """Tell a stored record that is an event."""
        event = event_of(record, self._task_id, self._context_id) if self._all else None
        if event is not None:
            size = size_of(record)
            self._all -= {follower for follower in self._all if not follower.tell(event, size)}

    def cut(self) -> None:
        """Nothing more happens here."""
        for follower in self._all:
            follower.cut()


def event_of(record: Record, task_id: str, context_id: str) -> TaskStatusUpdateEvent | TaskArtifactUpdateEvent | None:
    """The event that a record is (see state.EVENTS), or None."""
    match record:
        case ["status", at, state, message, *_]:
            return TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=status_of(at, state, message))
        case ["artifact", data, append, last, *_]:
            return TaskArtifactUpdateEvent(
                task_id=task_id,
                context_id=context_id,
                artifact=Artifact.FromString(data),
                append=append,
                last_chunk=last,
            )
        case _:
            return None
