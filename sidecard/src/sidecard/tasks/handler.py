"""The eleven A2A operations over the engine, authorized before anything is looked up (A2A 1.0 §3.1, §13.1)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import cast

from a2a.server.context import ServerCallContext
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
from a2a.utils.errors import (
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import apply_history_length, validate_history_length

from sidecard.callers import Caller, Denied
from sidecard.push import Webhooks
from sidecard.refusals import Unauthenticated
from sidecard.screening.vault import SealNotOpened
from sidecard.tasks import checks, push_configs, reveal
from sidecard.tasks.a2a_errors import as_a2a_errors
from sidecard.tasks.act import act_of
from sidecard.tasks.engine import Engine
from sidecard.tasks.events import Event, read_place
from sidecard.tasks.identity import TASK_ID
from sidecard.tasks.listing import list_tasks
from sidecard.tasks.live import Live, TaskEnded
from sidecard.tasks.reception import Reception
from sidecard.tasks.rights import (
    LESS_THAN_NEEDED,
    NOT_THEIRS,
    caller_of,
    may_see,
    right_to,
    right_to_reveal,
    tenant_of,
    verified,
)
from sidecard.tasks.state import Place
from sidecard.tasks.states import state_name

LAST_EVENT_HEADER = "last-event-id"
"""HTTP header, or gRPC metadata, of a SubscribeToTask that goes on where another stream was cut."""


class DurableRequestHandler(RequestHandler):
    """Serves A2A from the task log. `engine` gives the engine, or raises Unavailable while it isn't ready."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        *,
        scopes_of: Callable[[str], frozenset[str]],
        extended_card: Callable[[Caller], AgentCard],
        webhooks: Webhooks | None = None,
        denied: Denied | None = None,
    ) -> None:
        """Without `webhooks` push notifications are refused, as the card must then say (§3.3.4).

        What is still given to a caller ends, with Unauthenticated, once that one is `denied`.
        """
        self._engine = engine
        self._reception = Reception(engine, scopes_of=scopes_of, webhooks=webhooks)
        self._extended_card = extended_card
        self._webhooks = webhooks
        self._denied = denied or Denied()

    # -- messages -----------------------------------------------------------------------------------------------------

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> A2ATask | Message:
        """SendMessage (§3.1.1): returns once the task has ended or waits for somebody, or at once when asked to."""
        async with self._reception.take(params, context) as live:
            if not params.configuration.return_immediately:
                await live.settled()
                self._still_lets_in(context)
            return apply_history_length(live.folded.public(), params.configuration)

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """SendStreamingMessage (§3.1.2): the task, then what happens to it."""
        async with self._reception.take(params, context) as live, self._events(live, context) as events:
            async for event in events:
                yield event
            self._still_lets_in(context)

    # -- tasks --------------------------------------------------------------------------------------------------------

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> A2ATask | None:
        """GetTask (§3.1.3); for its owner with what was redacted put back, when asked to (see `reveal`)."""
        checks.required(params)
        validate_history_length(params)
        if reveal.is_asked(context):
            return await self._revealed(params, context)
        async with self._task(params.id, context, tenant_of(params, context)) as live:
            return apply_history_length(live.folded.public(), params)

    async def _revealed(self, params: GetTaskRequest, context: ServerCallContext) -> A2ATask:
        """The task as its owner alone may see it; that they did is in the audit before they do."""
        act = act_of(context)
        act.operation = reveal.OPERATION
        tenant = tenant_of(params, context)
        async with self._task(params.id, context, tenant, owner_only=True) as live:
            engine = self._engine()
            act.right = right_to_reveal(caller_of(context, tenant), engine.agent.skills.get(live.meta["skill"]))
            if not act.right:
                act.right = LESS_THAN_NEEDED
                raise TaskNotFoundError
            task, sealed = apply_history_length(live.folded.public(), params), list(live.folded.sealed)
            try:
                await asyncio.to_thread(reveal.put_back, task, sealed, engine.vault)  # there may be many to open
            except SealNotOpened as error:
                raise UnsupportedOperationError(str(error)) from None
            await engine.journal.record(act)
            self._still_lets_in(context)
            return task

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> A2ATask | None:
        """CancelTask (§3.1.5)."""
        checks.required(params)
        tenant = tenant_of(params, context)
        async with self._task(params.id, context, tenant, owner_only=True) as live:
            with contextlib.suppress(TaskEnded):
                await self._engine().cancel(live, caller_of(context, tenant), act=act_of(context))
                return live.folded.public()  # not canceled yet, where an effect under way takes long
            raise TaskNotCancelableError(f"the task is {state_name(live.state)} already")

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """SubscribeToTask (§3.1.6): the current task, then what happens to it; refused for an ended task.

        With the id of an event that the caller has seen (Last-Event-ID) everything behind it, also when it has ended.
        Who sees the task only because of its open question sees nothing that comes after it.
        """
        checks.required(params)
        after, tenant = _last_event(context), tenant_of(params, context)
        async with self._task(params.id, context, tenant) as live:
            caller = caller_of(context, tenant)
            if live.folded.ended and after is None:
                raise UnsupportedOperationError(f"the task is {state_name(live.folded.state)}; get it with GetTask")
            async with self._events(live, context, beyond=True, after=after) as events:
                async for event in events:
                    if not may_see(live.folded, caller, tenant):
                        return
                    yield event
                self._still_lets_in(context)

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """ListTasks (§3.1.4): the caller's own tasks, last changed first."""
        with as_a2a_errors:
            tenant = tenant_of(params, context)
            caller = caller_of(context, tenant)
            act_of(context).right = "owner"
            return await list_tasks(self._engine(), tenant, caller.name, params)

    def _events(
        self, live: Live, context: ServerCallContext, *, beyond: bool = False, after: Place | None = None
    ) -> contextlib.aclosing[AsyncGenerator[Event]]:
        """What a follower gets until it is revoked; leaving it ends the following at once."""
        until = partial(self._denied.stopping, verified(context).marks)
        return contextlib.aclosing(cast("AsyncGenerator[Event]", live.follow(beyond=beyond, after=after, until=until)))

    def _still_lets_in(self, context: ServerCallContext) -> None:
        """Raises Unauthenticated when the caller has been revoked since it came in."""
        if self._denied.covers(verified(context).marks):
            raise Unauthenticated

    @contextlib.asynccontextmanager
    async def _task(
        self, task_id: str, context: ServerCallContext, tenant: str, *, owner_only: bool = False
    ) -> AsyncIterator[Live]:
        """The task, for a caller that may see it; to all others it does not exist."""
        with as_a2a_errors:
            caller = caller_of(context, tenant)
            if not TASK_ID.fullmatch(task_id):
                raise TaskNotFoundError
            async with self._engine().borrow(task_id) as live:
                if live is None or not live.folded.n:
                    raise TaskNotFoundError
                act = act_of(context)
                act.right = right_to(live.folded, caller, tenant, owner_only=owner_only)
                if not act.right:
                    act.right = NOT_THEIRS
                    raise TaskNotFoundError
                act.skill = live.meta["skill"]
                yield live

    # -- webhooks and the extended card -------------------------------------------------------------------------------

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """CreateTaskPushNotificationConfig (§3.1.7)."""
        checks.check_webhook(params, self._webhooks)
        async with self._task(params.task_id, context, tenant_of(params, context), owner_only=True) as live:
            return await push_configs.keep(live, params, act_of(context))

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """GetTaskPushNotificationConfig (§3.1.8)."""
        checks.check_offered(self._webhooks)
        checks.required(params)
        async with self._task(params.task_id, context, tenant_of(params, context), owner_only=True) as live:
            if params.id not in live.folded.push:
                raise TaskNotFoundError("this task has no such push notification configuration")
            return push_configs.shown(TaskPushNotificationConfig.FromString(live.folded.push[params.id].config))

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """ListTaskPushNotificationConfigs (§3.1.9)."""
        checks.check_offered(self._webhooks)
        checks.required(params)
        async with self._task(params.task_id, context, tenant_of(params, context), owner_only=True) as live:
            return ListTaskPushNotificationConfigsResponse(configs=map(push_configs.shown, live.folded.push_configs()))

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """DeleteTaskPushNotificationConfig (§3.1.10); deleting what isn't there is no error."""
        checks.check_offered(self._webhooks)
        checks.required(params)
        async with self._task(params.task_id, context, tenant_of(params, context), owner_only=True) as live:
            if params.id in live.folded.push:
                live.append(["unpush", params.id], act=act_of(context))
                await live.commit()

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """GetExtendedAgentCard (§3.1.11): the skills that this caller may invoke."""
        with as_a2a_errors:
            caller = caller_of(context, tenant_of(params, context))
            act_of(context).right = "its scopes"
            return self._extended_card(caller)


def _last_event(context: ServerCallContext) -> Place | None:
    """The place of the last event that the caller says it has seen."""
    named = context.state.get("headers", {}).get(LAST_EVENT_HEADER, "")
    place = read_place(named) if named else None
    if named and place is None:
        raise InvalidParamsError("Last-Event-ID is not the id of an event that this agent gave out")
    return place
