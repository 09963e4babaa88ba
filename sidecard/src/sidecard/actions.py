"""What is done when a delegated task ends without success: an author declares it per skill, who delegates enforces it.

A declaration is a word, or several joined by " then ": the next is done where the one before is of no use (any more).

retry            the same again, with backoff, so often at most: only what may safely be repeated
elsewhere        another enrolled agent with the same skill; never back to one that has ended it so
escalate:<scope> a person with that right decides whether it is tried once more
reject           the delegating task is rejected too, for the same reason; who calls may say so, no skill can
surface          whoever delegated is told; what every declaration ends with
"""

from dataclasses import dataclass
from typing import Literal, cast

from a2a.types import TaskState

from sidecard.errors import ConfigurationError

Kind = Literal["retry", "elsewhere", "escalate", "reject", "surface"]
SURFACE = "surface"
_FITTING: dict[int, frozenset[str]] = {
    TaskState.TASK_STATE_FAILED: frozenset({"retry", "elsewhere", "escalate", "surface"}),
    # What was refused would be refused again; and nothing has been done, so it may be asked of others.
    TaskState.TASK_STATE_REJECTED: frozenset({"elsewhere", "escalate", "reject", "surface"}),
}
REPEATING = frozenset({"retry", "elsewhere"})
"""Actions by which something that failed may be done twice."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `scope` is the right that a person needs to whom it is escalated."""

    kind: Kind
    scope: str = ""


def read(declared: str, state: int) -> tuple[Action, ...]:
    """What a declaration for an end in this state (FAILED or REJECTED) says, in order.

    Raises ConfigurationError, naming what may be said there.
    """
    return tuple(_read(word.strip(), _FITTING[state]) for word in declared.split(" then "))


def declared(skill: str, failed: str, rejected: str, *, idempotent: bool) -> tuple[str, str]:
    """The declarations of a skill, checked, defaults filled in: what is idempotent is retried, all else surfaces.

    Raises ConfigurationError for one that no author may make.
    """
    failed = failed or ("retry" if idempotent else SURFACE)
    rejected = rejected or SURFACE
    for state, said in ((TaskState.TASK_STATE_FAILED, failed), (TaskState.TASK_STATE_REJECTED, rejected)):
        kinds = {action.kind for action in read(said, state)}
        if "reject" in kinds:
            raise ConfigurationError(f"{skill} can't declare 'reject': only who calls it may, in task.delegate")
        if state == TaskState.TASK_STATE_FAILED and not idempotent and kinds & REPEATING:
            raise ConfigurationError(
                f"{skill} is not idempotent, so nobody may repeat it when it failed: declare failed='surface' or "
                "failed='escalate:<scope>'"
            )
    return failed, rejected


def escalated_to(failed: str, rejected: str) -> list[str]:
    """The rights of those to whom a skill's declarations escalate."""
    ends = ((TaskState.TASK_STATE_FAILED, failed), (TaskState.TASK_STATE_REJECTED, rejected))
    return sorted({action.scope for state, said in ends for action in read(said, state) if action.scope})


def _read(word: str, fitting: frozenset[str]) -> Action:
    kind, _, scope = word.partition(":")
    if kind not in fitting or bool(scope) != (kind == "escalate"):
        said = ", ".join(sorted(f"{one}:<scope>" if one == "escalate" else one for one in fitting))
        raise ConfigurationError(f"{word!r} is no action for this end; there are: {said}, joined by ' then '")
    return Action(cast("Kind", kind), scope)
