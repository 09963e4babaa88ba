"""Who asks, in which tenant, and what of a task is theirs to see, to answer and to change."""

from collections.abc import Callable, Mapping
from typing import Protocol

from a2a.server.context import ServerCallContext
from a2a.types import Message
from a2a.utils.errors import InvalidParamsError

from sidecard.agent import Skill
from sidecard.callers import Caller, CallerUser
from sidecard.extension import URI, Asked, Sent
from sidecard.refusals import Forbidden, Unauthenticated
from sidecard.tasks.live import Live
from sidecard.tasks.state import ASK, FoldedTask
from sidecard.vouching import NotBelieved, Vouching, needs_proof, origin_of, said_by

NOT_THEIRS = "none: it is not theirs"
"""What the audit knows and no answer says: that a task which somebody may not see is there."""
LESS_THAN_NEEDED = "none: it came with less than it takes"


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


def owner_of(meta: Mapping[str, str], scopes_of: Callable[[str], frozenset[str]]) -> Caller:
    """A task's owner while its skill runs: with no more than it came with, of what it holds by now.

    The record of a task says what its token gave where that was less than the owner held (RFC 6749 §3.3).
    """
    scopes = _as_begun(meta, scopes_of(meta["owner"]))
    return Caller(name=meta["owner"], subject=meta["subject"], scopes=scopes, narrowed="scopes" in meta)


def _as_begun(meta: Mapping[str, str], scopes: frozenset[str]) -> frozenset[str]:
    return scopes & frozenset(meta["scopes"].split()) if "scopes" in meta else scopes


def may_see(folded: FoldedTask, caller: Caller, tenant: str, *, owner_only: bool = False) -> bool:
    """Owners see their tasks; whoever may answer a task's open question sees it as long as it is open."""
    return bool(right_to(folded, caller, tenant, owner_only=owner_only))


def right_to(folded: FoldedTask, caller: Caller, tenant: str, *, owner_only: bool = False) -> str:
    """The right by which somebody may see a task, in words for the audit; "" for none."""
    if folded.meta["tenant"] != tenant:
        return ""
    if folded.meta["owner"] == caller.name:
        return "owner"
    asked = folded.question.spec["scope"] if folded.question else ""
    if asked and asked in caller.scopes and not owner_only:
        return f"scope {asked}, which its question asks for"
    return ""


def has_answered(folded: FoldedTask, caller: Caller, tenant: str, message: Message) -> bool:
    """Whether this message is an answer that was taken before: who sends it again may no longer see the task."""
    return folded.meta["tenant"] == tenant and any(
        step.kind == ASK
        and step.done
        and step.value[0] == caller.subject
        and Message.FromString(step.value[1]).message_id == message.message_id
        for step in folded.steps.values()
    )


def check_may_go_on(live: Live, caller: Caller, needed: str) -> None:
    """Raises Forbidden unless the owner still comes with the right that it took to start it, `needed`.

    A token may have been given less than its caller holds.
    """
    if live.meta["owner"] == caller.name and needed and needed not in caller.scopes:
        raise Forbidden(f"this task needs somebody with the right {needed}; {caller.name} did not come with it")


def right_to_reveal(caller: Caller, skill: Skill | None) -> str:
    """The right by which a task's owner may have its redactions put back, in words for the audit; "" for none.

    It takes them in person, with the right that starting the task takes now: an agent that uses their token (RFC 8693)
    is not them, and a token may have been given less than they hold. Without its skill nothing less than all will do.
    """
    if caller.actor:
        return ""
    if skill is None or not skill.scope:
        return "" if caller.narrowed else "owner"
    return f"owner, scope {skill.scope}" if skill.scope in caller.scopes else ""


def check_may_answer(
    live: Live,
    caller: Caller,
    sent: Sent,
    message: Message,
    *,
    scopes_of: Callable[[str], frozenset[str]],
    vouching: Vouching | None,
) -> str:
    """In words for the audit, what else lets a message end the open question, if there is one. Raises if it may not.

    Forbidden when that is not for whom this caller acts to answer, or it is not proven that they did;
    InvalidParamsError when it is not what is asked for: an authority is granted by a grant that names it.
    """
    question = live.question
    if question is None:
        if sent.grant is not None:
            raise InvalidParamsError("nothing waits for an authority here")
        return ""
    asked = Asked.model_validate({"question": question.id, **question.spec})
    _check_fits(asked, sent)
    if asked.token and sent.grant is not None and sent.grant.granted and caller.token is None:
        raise InvalidParamsError(
            f"this waits for an access token of {live.meta['subject']}, by which it goes on: send the grant with one, "
            "as the bearer of it (`sidecard login`, then `sidecard grant --as`)"
        )
    proven = _proven_by(live, asked, caller, sent, message, vouching=vouching) if needs_proof(asked) else ""
    elsewhere = proven and asked.signed and origin_of(asked.signed).question != question.id
    # A caller for itself has the rights that it came with, which a token may narrow; another's are looked up.
    held = caller.scopes if caller.subject == caller.name else scopes_of(caller.subject)
    if caller.subject != caller.name and caller.narrowed:  # no token says more for another than its own scopes
        held &= caller.scopes
    if caller.subject != caller.name == live.meta["owner"]:
        held = _as_begun(live.meta, held)
    # Who asks checks the right: an agent that only passes the question on need not know the person.
    if asked.scope and not elsewhere and asked.scope not in held:
        raise Forbidden(f"this question needs somebody with the right {asked.scope}; {caller.subject} does not hold it")
    if asked.by_other and caller.subject == live.meta["subject"]:
        raise Forbidden("nobody approves their own request; somebody else with the right must answer")
    if asked.authority and caller.subject != live.meta["subject"]:
        raise Forbidden(f"only {live.meta['subject']} can grant {asked.authority}: the task runs on their behalf")
    if needs_proof(asked) and not (_is_here(caller) or proven):
        raise Forbidden(f"it is not proven that {caller.subject} said this: only they can, or a proof by who heard it")
    granted = f", {'grants' if sent.grant.granted else 'refuses'} {sent.grant.authority}" if sent.grant else ""
    return granted + (f", proven by {proven}" if proven else "")


def _is_here(caller: Caller) -> bool:
    """Whether whoever is spoken for speaks for themselves: nobody else does, not even by their token."""
    return caller.subject == caller.name and not caller.actor


def _check_fits(asked: Asked, sent: Sent) -> None:
    if sent.grant is None:
        if asked.authority:
            raise InvalidParamsError(
                f"this waits for {asked.authority}, which no text can grant: send a grant in the message's metadata "
                f"under {URI}, or use `sidecard grant`"
            )
    elif sent.grant.authority != asked.authority or sent.question != asked.question:
        raise InvalidParamsError("a grant names the question that is open, and just the authority that it demands")


def _proven_by(
    live: Live, asked: Asked, caller: Caller, sent: Sent, message: Message, *, vouching: Vouching | None
) -> str:
    """Whose proof came along for what somebody else is said to have said, if any. Raises Forbidden for a wrong one."""
    if not sent.proof:
        return ""
    if vouching is None or not asked.signed or _is_here(caller):
        raise Forbidden("a proof came along where none can be: say it in your own name, without it")
    try:
        return vouching.believe_answer(
            sent.proof,
            origin_of(asked.signed),
            by=caller.subject,
            tenant=live.meta["tenant"],
            said=said_by(message, sent.grant),
            scope=asked.scope,
        )
    except NotBelieved as error:
        raise Forbidden(f"it is not proven that {caller.subject} said this: {error}") from None
