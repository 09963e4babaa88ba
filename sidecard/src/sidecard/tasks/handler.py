"""The eleven A2A operations over the engine, authorized before anything is looked up (A2A 1.0 §3.1, §13.1)."""

import base64
import binascii
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator

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
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)
from a2a.types import Task as A2ATask
from a2a.utils.errors import (
    A2AError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.proto_utils import validate_proto_required_fields
from a2a.utils.task import apply_history_length, validate_history_length
from pydantic import ValidationError

from sidecard.agent import Skill
from sidecard.callers import Caller, CallerUser
from sidecard.errors import LogBroken, StoreUnavailable, TaskConflict
from sidecard.extension import URI, Sent
from sidecard.refusals import Forbidden, Unauthenticated, Unavailable
from sidecard.tasks import binding
from sidecard.tasks.engine import DifferentMessage, Engine
from sidecard.tasks.index import Line, OwnerList
from sidecard.tasks.live import Event, Live, TaskEnded
from sidecard.tasks.state import FoldedTask, state_name

log = logging.getLogger("sidecard.tasks")

TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_MESSAGE_ID = 256
MAX_PAGE = 100
DEFAULT_PAGE = 50


class DurableRequestHandler(RequestHandler):
    """Serves A2A from the task log. `engine` gives the engine, or raises Unavailable while it isn't ready."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        *,
        scopes_of: Callable[[str], frozenset[str]],
        extended_card: Callable[[Caller], AgentCard],
    ) -> None:
        self._engine = engine
        self._scopes_of = scopes_of
        self._extended_card = extended_card

    # -- messages -----------------------------------------------------------------------------------------------------

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> A2ATask | Message:
        """SendMessage (§3.1.1): returns once the task has ended or waits for somebody, or at once when asked to."""
        async with self._accepted(params, context) as live:
            if not params.configuration.return_immediately:
                await live.settled()
            return apply_history_length(live.folded.public(), params.configuration)

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """SendStreamingMessage (§3.1.2): the task, then what happens to it."""
        async with self._accepted(params, context) as live:
            async for event in live.follow():
                yield event

    @contextlib.asynccontextmanager
    async def _accepted(self, params: SendMessageRequest, context: ServerCallContext) -> AsyncIterator[Live]:
        """The task of a message, once the message is stored in it."""
        with _as_a2a_errors():
            caller = _caller(context, params.tenant)
            sent = self._check(params)
            caller = caller.on_behalf_of(sent.subject)
            message = Message()
            message.CopyFrom(params.message)
            engine = self._engine()
            task_id = message.task_id
            if not task_id:
                task_id = await engine.create(caller, params.tenant, self._skill(engine, caller, sent, message), message)
            async with engine.borrow(task_id) as live:
                if live is None:
                    raise TaskNotFoundError
                if params.message.task_id:
                    await self._answer(engine, live, caller, params.tenant, sent, message)
                if params.configuration.HasField("task_push_notification_config"):
                    await self._configure(live, params.configuration.task_push_notification_config)
                yield live

    def _check(self, params: SendMessageRequest) -> Sent:
        validate_proto_required_fields(params)
        validate_history_length(params.configuration)
        message = params.message
        if len(message.message_id) > MAX_MESSAGE_ID:
            raise InvalidParamsError(f"messageId is longer than {MAX_MESSAGE_ID} characters")
        if message.role != Role.ROLE_USER:
            raise InvalidParamsError("a message sent to an agent has role ROLE_USER")
        if message.task_id and not TASK_ID.fullmatch(message.task_id):
            raise TaskNotFoundError
        try:
            return Sent.of(params)
        except ValidationError as error:
            raise InvalidParamsError(f"metadata under {URI} is malformed: {binding.explain(error)}") from None

    def _skill(self, engine: Engine, caller: Caller, sent: Sent, message: Message) -> Skill:
        """The skill that is meant: named, or the only one, or the only one whose input fits."""
        skills = engine.agent.skills
        if sent.skill:
            if sent.skill not in skills:
                raise InvalidParamsError(f"there is no skill {sent.skill!r} here; there are: {', '.join(sorted(skills))}")
            candidates = [skills[sent.skill]]
        else:
            candidates = list(skills.values())
        allowed = [skill for skill in candidates if skill.scope in caller.scopes]
        if not allowed:
            needed = ", ".join(sorted({skill.scope for skill in candidates}))
            raise Forbidden(f"{caller.name} holds none of the scopes that this needs: {needed}")
        if len(allowed) > 1:
            fitting = [skill for skill in allowed if _fits(skill, message)]
            if len(fitting) != 1:
                names = ", ".join(sorted(skill.id for skill in allowed))
                raise InvalidParamsError(f"say which skill is meant, in the message's metadata under {URI}: one of {names}")
            return fitting[0]
        return allowed[0]

    async def _answer(
        self, engine: Engine, live: Live, caller: Caller, tenant: str, sent: Sent, message: Message
    ) -> None:
        if not _may_see(live.folded, caller, tenant):
            raise TaskNotFoundError
        if message.context_id and message.context_id != live.meta["context"]:
            raise InvalidParamsError("contextId is not this task's context")
        if message.message_id not in live.messages:
            if live.ended:
                raise UnsupportedOperationError(f"the task is {state_name(live.state)} and takes no more messages; start a new one")
            if sent.question and (live.question is None or live.question.id != sent.question):
                raise InvalidParamsError("the question that this answers is not open (any more)")
            self._may_answer(live, caller)
        await engine.answer(live, caller, message)

    def _may_answer(self, live: Live, caller: Caller) -> None:
        if live.question is None:
            return
        scope, by_other = live.question.spec["scope"], live.question.spec["by_other"]
        if scope and scope not in self._scopes_of(caller.subject):
            raise Forbidden(f"this question needs somebody with the right {scope}; {caller.subject} does not hold it")
        if by_other and caller.subject == live.meta["subject"]:
            raise Forbidden("nobody approves their own request; somebody else with the right must answer")

    # -- tasks --------------------------------------------------------------------------------------------------------

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> A2ATask | None:
        """GetTask (§3.1.3)."""
        validate_history_length(params)
        async with self._task(params.id, context, params.tenant) as live:
            return apply_history_length(live.folded.public(), params)

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> A2ATask | None:
        """CancelTask (§3.1.5)."""
        async with self._task(params.id, context, params.tenant, owner_only=True) as live:
            caller = _caller(context, params.tenant)
            try:
                await self._engine().cancel(live, caller)
            except TaskEnded:
                raise TaskNotCancelableError(f"the task is {state_name(live.state)} already") from None
            return live.folded.public()

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """SubscribeToTask (§3.1.6): the current task, then what happens to it; refused for an ended task."""
        async with self._task(params.id, context, params.tenant) as live:
            if live.folded.ended:
                raise UnsupportedOperationError(f"the task is {state_name(live.folded.state)}; get it with GetTask")
            async for event in live.follow():
                yield event

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """ListTasks (§3.1.4): the caller's own tasks, last changed first."""
        validate_history_length(params)
        if params.HasField("page_size") and not 1 <= params.page_size <= MAX_PAGE:
            raise InvalidParamsError(f"pageSize must be from 1 to {MAX_PAGE}")
        size = params.page_size if params.HasField("page_size") else DEFAULT_PAGE
        with _as_a2a_errors():
            caller = _caller(context, params.tenant)
            engine = self._engine()
            listing = await engine.journal.list_of(params.tenant, caller.name)
            response = ListTasksResponse(page_size=size)
            after = params.status_timestamp_after.ToMilliseconds() if params.HasField("status_timestamp_after") else None
            seen: set[str] = set()
            counted = not params.context_id and after is None
            async for position, line in listing.newest_first(engine.store, _page_position(params.page_token)):
                if line.task_id in seen or not _matches(line, params, after):
                    seen.add(line.task_id)
                    continue
                seen.add(line.task_id)
                if len(response.tasks) == size:
                    response.next_page_token = _page_token(position + 1)
                    break
                task = await self._listed(engine, line, params)
                if task is not None:
                    response.tasks.append(task)
            response.total_size = (
                _count(listing.counts, params.status) if counted else await _scan(engine, listing, params, after)
            )
            return response

    async def _listed(self, engine: Engine, line: Line, params: ListTasksRequest) -> A2ATask | None:
        """The task of a line; None when a newer line speaks of it, on a page before."""
        async with engine.borrow(line.task_id) as live:
            if live is None or live.folded.task.status.timestamp.ToMilliseconds() != line.at:
                return None
            task = apply_history_length(live.folded.public(), params)
            if not params.include_artifacts:
                task.ClearField("artifacts")
            return task

    @contextlib.asynccontextmanager
    async def _task(
        self, task_id: str, context: ServerCallContext, tenant: str, *, owner_only: bool = False
    ) -> AsyncIterator[Live]:
        """The task, for a caller that may see it; to all others it does not exist."""
        with _as_a2a_errors():
            caller = _caller(context, tenant)
            if not TASK_ID.fullmatch(task_id):
                raise TaskNotFoundError
            async with self._engine().borrow(task_id) as live:
                if live is None or not live.folded.n or not _may_see(live.folded, caller, tenant, owner_only=owner_only):
                    raise TaskNotFoundError
                yield live

    # -- webhooks and the extended card -------------------------------------------------------------------------------

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """CreateTaskPushNotificationConfig (§3.1.7)."""
        async with self._task(params.task_id, context, params.tenant, owner_only=True) as live:
            return await self._configure(live, params)

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """GetTaskPushNotificationConfig (§3.1.8)."""
        async with self._task(params.task_id, context, params.tenant, owner_only=True) as live:
            if params.id not in live.folded.push:
                raise TaskNotFoundError("this task has no such push notification configuration")
            return _shown(TaskPushNotificationConfig.FromString(live.folded.push[params.id]))

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """ListTaskPushNotificationConfigs (§3.1.9)."""
        async with self._task(params.task_id, context, params.tenant, owner_only=True) as live:
            return ListTaskPushNotificationConfigsResponse(configs=map(_shown, live.folded.push_configs()))

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """DeleteTaskPushNotificationConfig (§3.1.10); deleting what isn't there is no error."""
        async with self._task(params.task_id, context, params.tenant, owner_only=True) as live:
            if params.id in live.folded.push:
                live.append(["unpush", params.id])
                await live.commit()

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """GetExtendedAgentCard (§3.1.11): the skills that this caller may invoke."""
        return self._extended_card(_caller(context, params.tenant))

    async def _configure(self, live: Live, params: TaskPushNotificationConfig) -> TaskPushNotificationConfig:
        if not params.url.startswith(("https://", "http://")):
            raise InvalidParamsError("a push notification url starts with https:// (or http:// where that is allowed)")
        config = TaskPushNotificationConfig()
        config.CopyFrom(params)
        config.task_id = live.task_id
        config.id = config.id or secrets.token_hex(8)
        if live.ended:
            raise UnsupportedOperationError("the task has ended; nothing would be delivered")
        live.append(["push", config.id, config.SerializeToString()])
        await live.commit()
        return _shown(config)


def _caller(context: ServerCallContext, tenant: str) -> Caller:
    """The verified caller, in a tenant that it may use."""
    if not isinstance(context.user, CallerUser):
        raise Unauthenticated
    caller = context.user.caller
    if not caller.may_use(tenant):
        raise Forbidden(f"{caller.name} may not work in this tenant")
    return caller


def _may_see(folded: FoldedTask, caller: Caller, tenant: str, *, owner_only: bool = False) -> bool:
    """Owners see their tasks; whoever may answer a task's open question sees it as long as it is open."""
    if folded.meta["tenant"] != tenant:
        return False
    if folded.meta["owner"] == caller.name:
        return True
    asked = folded.question.spec["scope"] if folded.question else ""
    return bool(asked) and asked in caller.scopes and not owner_only


def _fits(skill: Skill, message: Message) -> bool:
    if skill.input is str:
        return bool(binding.text_of(message))
    offered = binding.raw_input(skill, message)
    if not offered:
        return False
    try:
        binding.validate(skill, offered)
    except ValidationError as error:
        return bool(binding.missing(error))
    return True


def _shown(config: TaskPushNotificationConfig) -> TaskPushNotificationConfig:
    """A configuration as reads give it: without its credentials."""
    shown = TaskPushNotificationConfig()
    shown.CopyFrom(config)
    shown.ClearField("token")
    shown.authentication.ClearField("credentials")
    if not config.HasField("authentication"):
        shown.ClearField("authentication")
    return shown


def _matches(line: Line, params: ListTasksRequest, after: int | None) -> bool:
    return (
        (not params.status or line.state == params.status)
        and (not params.context_id or line.context_id == params.context_id)
        and (after is None or line.at >= after)
    )


def _count(counts: dict[int, int], status: int) -> int:
    return counts.get(status, 0) if status else sum(counts.values())


async def _scan(engine: Engine, listing: OwnerList, params: ListTasksRequest, after: int | None) -> int:
    """How many tasks match filters that no counter is kept for: every line is read once."""
    seen: set[str] = set()
    total = 0
    async for _, line in listing.newest_first(engine.store):
        if line.task_id not in seen:
            seen.add(line.task_id)
            total += _matches(line, params, after)
    return total


def _page_token(position: int) -> str:
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def _page_position(token: str) -> int | None:
    if not token:
        return None
    try:
        return int(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii"))
    except (ValueError, binascii.Error):
        raise InvalidParamsError("pageToken is not one that this agent gave out") from None


@contextlib.contextmanager
def _as_a2a_errors() -> Generator[None]:
    """Our errors as A2A errors; what isn't foreseen is logged, and told without details."""
    try:
        yield
    except (A2AError, GeneratorExit):
        raise
    except DifferentMessage as error:
        raise InvalidParamsError(str(error)) from None
    except TaskEnded as error:
        raise UnsupportedOperationError(str(error)) from None
    except (LogBroken, TaskConflict) as error:
        log.exception("a task can't be served")
        raise Unavailable("this task can't be served here now; the agent's log says why") from error
    except StoreUnavailable as error:
        raise Unavailable(str(error)) from None
