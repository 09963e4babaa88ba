"""Who did what to which task with which right: each operation of a caller, and each refusal, goes into the audit.

What changes something is recorded by the write that stores it, so neither is there without the other. Reads and
refusals change nothing: they are recorded within a second, and a read that could not be is refused.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from a2a.server.context import ServerCallContext
from a2a.server.events.event_queue import Event
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)
from a2a.types import Task as A2ATask
from a2a.utils.errors import A2A_ERROR_REASONS, A2AError

from sidecard.callers import Caller, CallerUser
from sidecard.errors import StoreUnavailable
from sidecard.refusals import Forbidden, Unavailable
from sidecard.tasks.act import KEY, REFUSED, Act
from sidecard.tasks.identity import TASK_ID
from sidecard.tasks.journal import Journal
from sidecard.telemetry import current_trace_id

log = logging.getLogger("sidecard")

T = TypeVar("T")


class Audit:
    """What is told to the audit of an agent. `journal` gives where it is written, or raises while there is none yet."""

    def __init__(self, journal: Callable[[], Journal]) -> None:
        self._journal = journal

    def did(self, act: Act) -> None:
        """Record what somebody was let do, unless that is with what it changed. Raises Unavailable if it can't be."""
        if act.recorded:
            return
        try:
            self._journal().saw(act)
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from None

    def refused(self, error: A2AError, act: Act) -> None:
        """Record that somebody was refused, and why, in our words: A2A's may repeat what the request said."""
        why = error.message if isinstance(error, Forbidden) else A2A_ERROR_REASONS.get(type(error), "ERROR").lower()
        told = replace(act, outcome=f"{REFUSED}{why}", recorded=False, count=1)
        try:
            self._journal().saw(told)
        except (A2AError, StoreUnavailable):
            log.debug("not in the audit, as this agent is starting: %s was %s", told.caller, told.outcome)

    def turned_away(self, error: A2AError, caller: Caller | None = None, tenant: str = "") -> None:
        """Record that somebody was refused at the door, before it was known what they want."""
        self.refused(error, act_by(caller, "", tenant))


class Audited(RequestHandler):
    """A handler each of whose operations the audit is told of."""

    def __init__(self, handler: RequestHandler, audit: Audit) -> None:
        self._handler = handler
        self._audit = audit

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> A2ATask | Message:
        """SendMessage."""
        act = _begin("SendMessage", params, context, params.message.task_id)
        return await self._told(act, self._handler.on_message_send(params, context))

    def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """SendStreamingMessage."""
        act = _begin("SendStreamingMessage", params, context, params.message.task_id)
        return _Stream(self._handler.on_message_send_stream(params, context), act, self._audit)

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> A2ATask | None:
        """GetTask."""
        return await self._told(
            _begin("GetTask", params, context, params.id), self._handler.on_get_task(params, context)
        )

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """ListTasks."""
        return await self._told(_begin("ListTasks", params, context), self._handler.on_list_tasks(params, context))

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> A2ATask | None:
        """CancelTask."""
        act = _begin("CancelTask", params, context, params.id)
        return await self._told(act, self._handler.on_cancel_task(params, context))

    def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """SubscribeToTask."""
        act = _begin("SubscribeToTask", params, context, params.id)
        return _Stream(self._handler.on_subscribe_to_task(params, context), act, self._audit)

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """CreateTaskPushNotificationConfig."""
        act = _begin("CreateTaskPushNotificationConfig", params, context, params.task_id)
        return await self._told(act, self._handler.on_create_task_push_notification_config(params, context))

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """GetTaskPushNotificationConfig."""
        act = _begin("GetTaskPushNotificationConfig", params, context, params.task_id)
        return await self._told(act, self._handler.on_get_task_push_notification_config(params, context))

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """ListTaskPushNotificationConfigs."""
        act = _begin("ListTaskPushNotificationConfigs", params, context, params.task_id)
        return await self._told(act, self._handler.on_list_task_push_notification_configs(params, context))

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """DeleteTaskPushNotificationConfig."""
        act = _begin("DeleteTaskPushNotificationConfig", params, context, params.task_id)
        await self._told(act, self._handler.on_delete_task_push_notification_config(params, context))

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """GetExtendedAgentCard."""
        act = _begin("GetExtendedAgentCard", params, context)
        return await self._told(act, self._handler.on_get_extended_agent_card(params, context))

    async def _told(self, act: Act, answer: Awaitable[T]) -> T:
        """The answer, given out once the audit knows of it."""
        try:
            given = await answer
            self._audit.did(act)
        except A2AError as error:
            self._audit.refused(error, act)
            raise
        return given


class _Stream(AsyncGenerator[Event, None]):
    """A stream that the audit is told of with its first event, and that costs nothing more from then on."""

    def __init__(self, events: AsyncGenerator[Event, None], act: Act, audit: Audit) -> None:
        self._events, self._act, self._audit = events, act, audit
        self._next: Callable[[], Awaitable[Event]] = self._first

    def __anext__(self) -> Any:  # noqa: ANN401 -- an awaitable, as of an async generator
        return self._next()

    async def _first(self) -> Event:
        try:
            event = await anext(self._events)
            self._audit.did(self._act)
        except A2AError as error:
            self._audit.refused(error, self._act)
            raise
        self._next = self._events.__anext__
        return event

    def asend(self, value: None) -> Any:  # noqa: ANN401
        """As of any async generator; nothing is sent into this one."""
        return self.__anext__()

    def athrow(
        self,
        kind: Any,  # noqa: ANN401
        error: object = None,
        traceback: TracebackType | None = None,
    ) -> Any:  # noqa: ANN401
        """As of any async generator."""
        return self._events.athrow(kind)

    async def aclose(self) -> None:
        """End the stream."""
        await self._events.aclose()


def act_by(caller: Caller | None, operation: str, tenant: str = "") -> Act:
    """An act of this caller, in the trace that we are in."""
    act = Act(operation, tenant=tenant, trace=current_trace_id())
    if caller is not None:
        act.caller, act.identity, act.subject = caller.name, caller.identity, caller.subject
    return act


def _begin(operation: str, params: Any, context: ServerCallContext, task_id: str = "") -> Act:  # noqa: ANN401 -- any request
    """The act that a call is. Whatever is no task id is left out: it is the caller's own words."""
    caller = context.user.caller if isinstance(context.user, CallerUser) else None
    act = context.state[KEY] = act_by(caller, operation, params.tenant or context.tenant)
    if task_id and TASK_ID.fullmatch(task_id):
        act.task = task_id
    return act
