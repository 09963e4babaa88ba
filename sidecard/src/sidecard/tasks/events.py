"""The events that streams and webhooks are told, each bearing the place in the log that made it.

A place is written "12.3": entry 12, record 3; "12" is the end of entry 12. It travels in the event's metadata under our
extension, and as the `id` of server-sent events, so that a stream that was cut can go on where it was (Last-Event-ID).
"""

import re
from collections.abc import AsyncIterator, Mapping

from a2a.types import Artifact, TaskArtifactUpdateEvent, TaskStatusUpdateEvent
from a2a.types import Task as A2ATask
from google.protobuf.struct_pb2 import Struct

from sidecard.errors import LogBroken
from sidecard.extension import URI
from sidecard.tasks.entry import Entry, Record, log_key
from sidecard.tasks.loading import READ_AHEAD
from sidecard.tasks.state import FoldedTask, Place, status_of
from sidecard.tasks.store import StateStore

Update = TaskStatusUpdateEvent | TaskArtifactUpdateEvent
Event = A2ATask | Update
_PLACE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?")
_END = 1_000_000
"""Stands for the end of an entry; more records than an entry holds."""


def event_of(record: Record, meta: Mapping[str, str], place: Place) -> Update | None:
    """The event that a record at this place of a task's log is (see state.EVENTS), or None."""
    task_id, context_id = meta["task"], meta["context"]
    event: Update
    match record:
        case ["status", at, state, message, *_]:
            status = status_of(at, state, message)
            event = TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=status)
        case ["artifact", data, append, last, *_]:
            event = TaskArtifactUpdateEvent(
                task_id=task_id,
                context_id=context_id,
                artifact=Artifact.FromString(data),
                append=append,
                last_chunk=last,
            )
        case _:
            return None
    _mark(event.metadata, f"{place[0]}.{place[1]}")
    return event


def task_of(folded: FoldedTask) -> A2ATask:
    """The task as it is stored now, as a stream begins with it."""
    task = folded.public()
    _mark(task.metadata, str(folded.n))
    return task


async def events_since(store: StateStore, meta: Mapping[str, str], after: Place, end: int) -> AsyncIterator[Update]:
    """A task's stored events behind a place, up to its entry `end`. Raises LogBroken, StoreUnavailable."""
    task_id = meta["task"]
    for first in range(max(1, after[0]), end + 1, READ_AHEAD):
        keys = [log_key(task_id, n) for n in range(first, min(first + READ_AHEAD, end + 1))]
        stored = await store.read(keys)
        for n, key in enumerate(keys, first):
            if key not in stored:
                raise LogBroken(f"entry {n} of task {task_id} is gone: the state store lost writes")
            for number, record in enumerate(Entry.unpack(stored[key]).records):
                event = event_of(record, meta, (n, number)) if (n, number) > after else None
                if event is not None:
                    yield event


def read_place(text: str) -> Place | None:
    """The place that an event's id names; None when it is none of ours."""
    found = _PLACE.fullmatch(text)
    return (int(found[1]), int(found[2]) if found[2] else _END) if found else None


def _mark(metadata: Struct, place: str) -> None:
    metadata.fields[URI].struct_value.fields["event"].string_value = place
