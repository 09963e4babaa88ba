"""A task of another agent, from the message that starts it to where it rests: by its stream, or by asking."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from a2a.client import Client
from a2a.types import (
    Artifact,
    GetTaskRequest,
    Message,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskState,
    TaskStatus,
)
from a2a.types import Task as A2ATask
from a2a.utils.errors import UnsupportedOperationError

from sidecard.streamed import fold
from sidecard.tasks.states import INTERRUPTED, TERMINAL
from sidecard.telemetry import span

DRAIN_SECONDS = 0.5
POLL_SECONDS = (0.2, 0.5, 1.0, 2.0)
RESTING = TERMINAL | INTERRUPTED
Heard = Callable[[str, int], None]
"""Told of each event: the task's id, and the state that it tells, if any."""


async def listen(client: Client, request: SendMessageRequest, heard: Heard, *, agent: str = "") -> A2ATask | None:
    """Send a message and follow its task: the task once it rests, None when the stream ends before."""
    async with contextlib.aclosing(events(client.send_message(request))) as stream:
        with span("handshake send", agent=agent):
            first = await anext(stream, None)
        if first is None:
            return None
        if first.HasField("message"):
            return _task_of(first.message)
        with span("handshake track", agent=agent, task_id=status(first)[0]):
            return await _follow(client, request.tenant, _with(first, stream), heard, stream)


async def track(
    client: Client,
    task_id: str,
    tenant: str,
    heard: Heard,
    *,
    pause: Callable[[float], Awaitable[None]],
    agent: str = "",
) -> A2ATask:
    """Follow a task that the other agent has taken, without sending anything again: the task once it rests.

    By its stream where it can be subscribed to, else by asking again and again.
    """
    streams, attempt = True, 0
    with span("handshake track", agent=agent, task_id=task_id):
        while True:
            task = await client.get_task(GetTaskRequest(id=task_id, tenant=tenant))
            heard(task.id, task.status.state)
            if task.status.state in RESTING:
                return task
            if streams:
                subscribed = client.subscribe(SubscribeToTaskRequest(id=task_id, tenant=tenant))
                try:
                    async with contextlib.aclosing(events(subscribed)) as stream:
                        if rests := await _follow(client, tenant, stream, heard, stream):
                            return rests
                except UnsupportedOperationError:
                    streams = False
            await pause(POLL_SECONDS[min(attempt, len(POLL_SECONDS) - 1)])
            attempt += 1


async def _follow(
    client: Client,
    tenant: str,
    given: AsyncIterator[StreamResponse],
    heard: Heard,
    stream: AsyncGenerator[StreamResponse],
) -> A2ATask | None:
    seen: A2ATask | None = None
    in_chunks = False
    async for event in given:
        if event.HasField("message"):
            return _task_of(event.message)
        task_id, state = status(event)
        heard(task_id, state)
        if seen is not None or event.HasField("task"):
            seen = fold(seen or A2ATask(), event)
        in_chunks = in_chunks or event.artifact_update.append
        if state not in RESTING:
            continue
        await drain(stream)
        if state in TERMINAL and seen is not None and not in_chunks:
            return seen  # its stream has told all of it, and nothing changes it any more
        task = await client.get_task(GetTaskRequest(id=task_id, tenant=tenant))
        if task.status.state in RESTING:  # else somebody has just answered it
            return task
    return None


async def events(stream: AsyncIterator[StreamResponse]) -> AsyncGenerator[StreamResponse]:
    """The events of a stream that say something."""
    async for event in stream:
        if event.WhichOneof("payload"):
            yield event


async def drain(stream: AsyncGenerator[StreamResponse]) -> None:
    """Let the other side end the stream, which it does at once (A2A 1.0 §11.7): cut off, it would count as failed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass


def status(event: StreamResponse) -> tuple[str, int]:
    """The task of an event, and the state that it tells, if any."""
    match event.WhichOneof("payload"):
        case "task":
            return event.task.id, event.task.status.state
        case "status_update":
            return event.status_update.task_id, event.status_update.status.state
        case _:
            return event.artifact_update.task_id, TaskState.TASK_STATE_UNSPECIFIED


async def _with(first: StreamResponse, others: AsyncIterator[StreamResponse]) -> AsyncIterator[StreamResponse]:
    yield first
    async for one in others:
        yield one


def _task_of(message: Message) -> A2ATask:
    """An answer without a task (A2A 1.0 §3.1.1), as a task that is done: its parts are the result."""
    return A2ATask(
        id=message.task_id,
        context_id=message.context_id,
        status=TaskStatus(state=TaskState.TASK_STATE_COMPLETED),
        artifacts=[Artifact(artifact_id="result", name="result", parts=message.parts)],
    )
