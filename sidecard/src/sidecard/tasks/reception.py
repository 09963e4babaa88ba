"""Where callers' messages come in: what they may say to which task is decided before anything is stored."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from a2a.server.context import ServerCallContext
from a2a.types import Message, Role, SendMessageRequest, TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError, UnsupportedOperationError
from a2a.utils.task import validate_history_length
from pydantic import ValidationError

from sidecard.callers import Caller
from sidecard.extension import URI, Sent
from sidecard.push import Webhooks
from sidecard.refusals import Forbidden
from sidecard.tasks import checks, push_configs
from sidecard.tasks.a2a_errors import as_a2a_errors
from sidecard.tasks.act import REPEATED, Act, act_of
from sidecard.tasks.choice import choose
from sidecard.tasks.engine import Engine
from sidecard.tasks.identity import TASK_ID
from sidecard.tasks.intake import Overtaken
from sidecard.tasks.live import Live, TaskEnded
from sidecard.tasks.rights import (
    NOT_THEIRS,
    caller_of,
    check_may_answer,
    check_may_go_on,
    has_answered,
    may_see,
    right_to,
    tenant_of,
)
from sidecard.tasks.states import state_name
from sidecard.tasks.tombstone import TaskExpired
from sidecard.validation import explain

log = logging.getLogger("sidecard.tasks")

_USER = Role.ROLE_USER
MOST_MESSAGES = 1_000
MOST_TASK_BYTES = 32_000_000
"""What a task may hold before it takes no more messages: all of it is kept in memory, and given out as a whole."""


class Reception:
    """Takes callers' messages to their tasks. `engine` gives the engine, or raises Unavailable while it isn't ready."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        *,
        scopes_of: Callable[[str], frozenset[str]],
        webhooks: Webhooks | None,
    ) -> None:
        """`scopes_of` gives what a caller holds by now; without `webhooks` none may come with a message (§3.3.4)."""
        self._engine = engine
        self._scopes_of = scopes_of
        self._webhooks = webhooks

    @contextlib.asynccontextmanager
    async def take(self, params: SendMessageRequest, context: ServerCallContext) -> AsyncIterator[Live]:
        """The task of a message, once the message is stored in it; it is kept in memory meanwhile."""
        with as_a2a_errors:
            tenant = tenant_of(params, context)
            caller = caller_of(context, tenant)
            sent = self._check(params)
            caller = caller.on_behalf_of(sent.subject)
            act = act_of(context)
            act.subject = caller.subject
            message = _copy(params.message)
            engine = self._engine()
            webhook = push_configs.sent_with(params)
            task_id = message.task_id
            if not task_id:
                skill = choose(engine.agent.skills, caller, sent, message)
                act.skill, act.right = skill.id, f"scope {skill.scope}"
                try:
                    task_id = await engine.intake.create(
                        caller, tenant, skill, message, webhook, withdrawn=sent.withdraw, act=act
                    )
                except TaskExpired:
                    if sent.withdraw:
                        raise TaskNotFoundError from None
                    raise
            async with engine.borrow(task_id) as live:
                if live is None:
                    raise TaskNotFoundError
                if sent.withdraw:
                    with contextlib.suppress(TaskEnded):
                        await engine.cancel(live, caller, act=None if act.recorded else act)
                elif params.message.task_id:
                    await self._answer(live, caller, tenant, sent, message, webhook=webhook, act=act)
                elif webhook is not None and webhook.id not in live.folded.push and not live.ended:
                    await push_configs.keep(live, webhook, act)  # the message was sent before, without it
                if not act.recorded:
                    act.task, act.skill, act.outcome = live.task_id, live.meta["skill"], REPEATED
                yield live

    def _check(self, params: SendMessageRequest) -> Sent:
        """What is the same for all skills. Raises before anything is stored."""
        checks.check_content(params)
        checks.required(params)
        validate_history_length(params.configuration)
        message = params.message
        checks.check_ids(messageId=message.message_id, contextId=message.context_id)
        if message.role != _USER:
            raise InvalidParamsError("a message sent to an agent has role ROLE_USER")
        if message.task_id and not TASK_ID.fullmatch(message.task_id):
            raise TaskNotFoundError
        if not all(part.WhichOneof("content") for part in message.parts):
            raise InvalidParamsError("every part has text, data, raw or url")
        if params.configuration.HasField("task_push_notification_config"):
            checks.check_webhook(params.configuration.task_push_notification_config, self._webhooks)
        try:
            sent = Sent.of(params)
        except ValidationError as error:
            raise InvalidParamsError(f"metadata under {URI} is malformed: {explain(error)}") from None
        if sent.grant is not None and not message.task_id:
            raise InvalidParamsError("a grant belongs to the task that waits for it: name that")
        if sent.withdraw and message.task_id:
            raise InvalidParamsError("only a first message can be withdrawn; cancel its task with CancelTask")
        return sent

    async def _answer(
        self,
        live: Live,
        caller: Caller,
        tenant: str,
        sent: Sent,
        message: Message,
        *,
        webhook: TaskPushNotificationConfig | None,
        act: Act,
    ) -> None:
        act.right = right_to(live.folded, caller, tenant)
        if not act.right:
            if not has_answered(live.folded, caller, tenant, message):
                act.right = NOT_THEIRS
                raise TaskNotFoundError
            act.right = "has answered before"
        act.skill = live.meta["skill"]
        if message.context_id and message.context_id != live.meta["context"]:
            raise InvalidParamsError("contextId is not this task's context")
        if webhook is not None and not may_see(live.folded, caller, tenant, owner_only=True):
            raise Forbidden("only its owner has a webhook told of a task; answer without one")
        # Before the checks that follow, since it may take a while: what they find must still hold when it is stored.
        original = _copy(message) if sent.proof else message  # what is proven is what was sent, not what is left of it
        received = await self._engine().intake.inspect_answer(live, caller, message, sent.grant)
        while True:
            if message.message_id not in live.messages:
                self._check_may_say(live, caller, tenant, sent, original, act=act)
                if webhook is not None:
                    push_configs.check_room(live, webhook)
            try:
                intake = self._engine().intake
                return await intake.answer(live, caller, message, webhook, sent.grant, received=received, act=act)
            except Overtaken as error:
                log.debug("%s; who may say what is looked at again", error)

    def _check_may_say(
        self, live: Live, caller: Caller, tenant: str, sent: Sent, original: Message, *, act: Act
    ) -> None:
        """Raises whatever is against a message to a task as it stands now; the act says by which right it is sent."""
        act.right = right_to(live.folded, caller, tenant)
        if not act.right:  # the question that let them see it has been answered meanwhile
            act.right = NOT_THEIRS
            raise TaskNotFoundError
        if live.ended:
            raise UnsupportedOperationError(
                f"the task is {state_name(live.state)} and takes no more messages; start a new one"
            )
        if len(live.messages) >= MOST_MESSAGES or live.folded.task.ByteSize() > MOST_TASK_BYTES:
            raise UnsupportedOperationError("the task has taken as many messages as it can; start a new one")
        if sent.question and sent.question != live.asks:
            raise InvalidParamsError("the question that this answers is not open (any more)")
        skill, vouching = self._engine().agent.skills.get(live.meta["skill"]), self._engine().vouching
        check_may_go_on(live, caller, skill.scope if skill else "")
        act.right += check_may_answer(live, caller, sent, original, scopes_of=self._scopes_of, vouching=vouching)


def _copy(message: Message) -> Message:
    copy = Message()
    copy.CopyFrom(message)
    return copy
