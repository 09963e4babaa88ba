"""Which skill a first message means."""

from collections.abc import Mapping

from a2a.types import Message
from a2a.utils.errors import InvalidParamsError
from pydantic import ValidationError

from sidecard.agent import Skill
from sidecard.callers import Caller
from sidecard.extension import URI, Sent
from sidecard.refusals import Forbidden
from sidecard.tasks import binding


def choose(skills: Mapping[str, Skill], caller: Caller, sent: Sent, message: Message) -> Skill:
    """The skill that is named, or the only one that the caller may use, or the only one of those whose input fits.

    Raises InvalidParamsError, saying what to name, and Forbidden when the caller may use none that could be meant.
    """
    if sent.skill:
        if sent.skill not in skills:
            raise InvalidParamsError(
                f"there is no skill {sent.skill[:50]!r} here; there are: {', '.join(sorted(skills))}"
            )
        candidates = [skills[sent.skill]]
    else:
        candidates = list(skills.values())
    allowed = [skill for skill in candidates if skill.scope in caller.scopes]
    if not allowed:
        needed = ", ".join(sorted({skill.scope for skill in candidates}))
        raise Forbidden(f"{caller.name} holds none of the scopes that this needs: {needed}")
    if len(allowed) == 1:
        return allowed[0]
    fitting = [skill for skill in allowed if _fits(skill, message)]
    if len(fitting) != 1:
        names = ", ".join(sorted(skill.id for skill in allowed))
        raise InvalidParamsError(f"say which skill is meant, in the message's metadata under {URI}: one of {names}")
    return fitting[0]


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
