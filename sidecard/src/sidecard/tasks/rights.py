"""Who asks, in which tenant, and what of a task is theirs to see, to answer and to change."""

from collections.abc import Callable
from typing import Protocol

from a2a.server.context import ServerCallContext
from a2a.types import Message
from a2a.utils.errors import InvalidParamsError

from sidecard.callers import Caller, CallerUser
from sidecard.refusals import Forbidden, Unauthenticated
from sidecard.tasks.live import Live
from sidecard.tasks.state import ASK, FoldedTask


class InTenant(Protocol):
    """Every request of A2A."""

    @property
    def tenant(self) -> str:
        """Where it is made, "" for the default one."""


def tenant_of(params: InTenant, context: ServerCallContext) -> str:
    """The tenant of a request. HTTP+JSON has it in the path, so in the context; the others in the request."""
    if params.tenant and context.tenant and params.tenant != context.tenant:
        raise InvalidParamsError("tenant is given twice, and differs")
    return params.tenant or context.tenant


def verified(context: ServerCallContext) -> Caller:
    """The verified caller, wherever it may work. Raises Unauthenticated."""
    if not isinstance(context.user, CallerUser):
        raise Unauthenticated
    return context.user.caller


def caller_of(context: ServerCallContext, tenant: str) -> Caller:
    """The verified caller. Raises Unauthenticated, and Forbidden in a tenant that it may not use."""
    caller = verified(context)
    if not caller.may_use(tenant):
        raise Forbidden(f"{caller.name} may not work in this tenant")
    return caller


def may_see(folded: FoldedTask, caller: Caller, tenant: str, *, owner_only: bool = False) -> bool:
    """Owners see their tasks; whoever may answer a task's open question sees it as long as it is open."""
    if folded.meta["tenant"] != tenant:
        return False
    if folded.meta["owner"] == caller.name:
        return True
    asked = folded.question.spec["scope"] if folded.question else ""
    return bool(asked) and asked in caller.scopes and not owner_only


def has_answered(folded: FoldedTask, caller: Caller, tenant: str, message: Message) -> bool:
    """Whether this message is an answer that was taken before: who sends it again may no longer see the task."""
    return folded.meta["tenant"] == tenant and any(
        step.kind == ASK
        and step.done
        and step.value[0] == caller.subject
        and Message.FromString(step.value[1]).message_id == message.message_id
        for step in folded.steps.values()
    )


def check_may_answer(live: Live, caller: Caller, scopes_of: Callable[[str], frozenset[str]]) -> None:
    """Raises Forbidden when the open question, if there is one, is not for whom this caller acts to answer."""
    if live.question is None:
        return
    scope, by_other = live.question.spec["scope"], live.question.spec["by_other"]
    # A caller for itself has the rights that it came with, which a token may narrow; another's are looked up.
    held = caller.scopes if caller.subject == caller.name else scopes_of(caller.subject)
    if scope and scope not in held:
        raise Forbidden(f"this question needs somebody with the right {scope}; {caller.subject} does not hold it")
    if by_other and caller.subject == live.meta["subject"]:
        raise Forbidden("nobody approves their own request; somebody else with the right must answer")
