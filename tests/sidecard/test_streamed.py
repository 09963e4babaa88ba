"""What the events of a stream add up to."""

import pytest
from a2a.types import (
    Artifact,
    Message,
    Part,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from sidecard.extension import URI
from sidecard.streamed import fold, is_last, place_of, task_id_of

WORKING, DONE, ASKS = (
    TaskStatus(state=state)
    for state in (TaskState.TASK_STATE_WORKING, TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_INPUT_REQUIRED)
)


def status(state):
    return StreamResponse(status_update=TaskStatusUpdateEvent(task_id="t", context_id="c", status=state))


def artifact(text, *, append=False):
    piece = Artifact(artifact_id="a", name="report", parts=[Part(text=text)])
    return StreamResponse(artifact_update=TaskArtifactUpdateEvent(task_id="t", artifact=piece, append=append))


MESSAGE = StreamResponse(message=Message(context_id="c", parts=[Part(text="hello")]))


def test_updates_add_up_to_the_task():
    """The last status counts; an artifact is replaced, or appended to when the event says so."""
    task = Task()
    events = [
        StreamResponse(task=Task(id="t", status=WORKING)),
        artifact("old"),
        artifact("new"),
        artifact("er", append=True),
        status(DONE),
    ]
    for event in events:
        task = fold(task, event)
    assert (task.id, task.status) == ("t", DONE)
    assert [part.text for part in task.artifacts[0].parts] == ["new", "er"]


def test_a_later_task_replaces_what_was_known():
    """As after a reconnection: it is the whole truth."""
    task = fold(Task(id="t", artifacts=[Artifact(artifact_id="a")]), StreamResponse(task=Task(id="t", status=DONE)))
    assert task == Task(id="t", status=DONE)


def test_a_message_alone_becomes_a_completed_task_without_id():
    """So that whoever sent something always gets a task."""
    task = fold(Task(), MESSAGE)
    assert (task.id, task.status.state) == ("", TaskState.TASK_STATE_COMPLETED)
    assert task.status.message.parts[0].text == "hello"


@pytest.mark.parametrize(
    ("event", "last", "task_id"),
    [
        (StreamResponse(task=Task(id="t", status=WORKING)), False, "t"),
        (StreamResponse(task=Task(id="t", status=ASKS)), True, "t"),
        (status(WORKING), False, "t"),
        (status(ASKS), True, "t"),
        (status(DONE), True, "t"),
        (artifact("x"), False, "t"),
        (MESSAGE, True, ""),
    ],
)
def test_what_ends_a_stream(event, last, task_id):
    """An end, a question, or a plain message."""
    assert (is_last(event), task_id_of(event)) == (last, task_id)


def test_where_an_event_stands_is_in_its_metadata():
    """Other agents give nothing there, or something of their own."""
    event = artifact("x")
    assert place_of(event) == place_of(StreamResponse()) == ""
    event.artifact_update.metadata.update({URI: "something else"})
    assert place_of(event) == ""
    event.artifact_update.metadata.update({URI: {"event": "12.3"}})
    assert place_of(event) == "12.3"
