"""Events of a task's stream: what they are about, and the task that they add up to. A2A 1.0 §3.1.2 and §4.2."""

from typing import Any

from a2a.types import Message, StreamResponse, Task, TaskArtifactUpdateEvent, TaskStatusUpdateEvent
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtoMessage

from sidecard.extension import URI
from sidecard.proto_json import write
from sidecard.tasks.states import COMPLETED, INTERRUPTED, TERMINAL

_KINDS: dict[type[ProtoMessage], str] = {
    Task: "task",
    Message: "message",
    TaskStatusUpdateEvent: "statusUpdate",
    TaskArtifactUpdateEvent: "artifactUpdate",
}


def named(told: ProtoMessage) -> dict[str, Any]:
    """The StreamResponse of an event, or what a message is answered with, in ProtoJSON (§3.2.2, §3.2.3)."""
    return {_KINDS[type(told)]: write(told)}


def task_id_of(event: StreamResponse) -> str:
    """The task that an event is about; empty for a message without one."""
    match event.WhichOneof("payload"):
        case "task":
            return event.task.id
        case "status_update":
            return event.status_update.task_id
        case "artifact_update":
            return event.artifact_update.task_id
        case _:
            return event.message.task_id


def place_of(event: StreamResponse) -> str:
    """Where in its task's log an event stands, to go on behind it (`tasks.events`); empty if it does not say."""
    kind = event.WhichOneof("payload")
    ours = MessageToDict(getattr(event, kind).metadata).get(URI) if kind else None
    return str(ours.get("event", "")) if isinstance(ours, dict) else ""


def is_last(event: StreamResponse) -> bool:
    """Whether nothing more comes by itself: the task has ended, waits for somebody, or the answer was a message."""
    match event.WhichOneof("payload"):
        case "task":
            return event.task.status.state in TERMINAL | INTERRUPTED
        case "status_update":
            return event.status_update.status.state in TERMINAL | INTERRUPTED
        case "artifact_update":
            return False
        case _:
            return True


def fold(task: Task, event: StreamResponse) -> Task:
    """The task after an event; `task` itself is changed, unless the event brings a whole new one.

    An agent that answers by a message alone has no task: its message becomes the status of a COMPLETED one without id.
    """
    match event.WhichOneof("payload"):
        case "task":
            return event.task
        case "status_update":
            task.id, task.context_id = event.status_update.task_id, event.status_update.context_id
            task.status.CopyFrom(event.status_update.status)
        case "artifact_update":
            _fold_artifact(task, event)
        case _:
            task.context_id = event.message.context_id
            task.status.state = COMPLETED
            task.status.message.CopyFrom(event.message)
    return task


def _fold_artifact(task: Task, event: StreamResponse) -> None:
    update = event.artifact_update
    known = next((a for a in task.artifacts if a.artifact_id == update.artifact.artifact_id), None)
    if known is None:
        task.artifacts.append(update.artifact)
    elif update.append:
        known.parts.extend(update.artifact.parts)
    else:
        known.CopyFrom(update.artifact)
