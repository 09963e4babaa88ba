"""Content inspection of tools, such as an MCP server's: what one is asked, and what it answers, on both sides."""

import functools
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

from a2a.types import Message, Part
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from pydantic import TypeAdapter, ValidationError

from sidecard.agent import Agent
from sidecard.screening.finding import Direction, Withheld
from sidecard.screening.guard import Guard, Outcome
from sidecard.screening.policy import DEFAULT, Policy
from sidecard.screening.screen import Screen
from sidecard.screening.vault import Vault

log = logging.getLogger("sidecard")
P = ParamSpec("P")
T = TypeVar("T")


async def inspect(
    guard: Guard, value: object, direction: Direction, *, tool: str, skill: str = "", task_id: str = ""
) -> tuple[Any, Outcome]:
    """A JSON value on its way to a tool (OUT) or from it (IN), as it may pass, and what was decided.

    It is the very same value when nothing was changed. Raises ScreeningFailed.
    """
    part = Part()
    part.data.CopyFrom(ParseDict(cast("dict[str, Any]", value), Value()))
    content = Message(parts=[part])
    outcome = await guard.passes(skill, task_id, tool, content, direction)
    changed = outcome.changed and not outcome.withheld
    return MessageToDict(content.parts[0].data) if changed else value, outcome


def _as(result: TypeAdapter[T], told: object, tool: str) -> T:
    """What is told, as the tool says it answers. Raises Withheld for a number that is a placeholder now."""
    try:
        return result.validate_python(told)
    except ValidationError:
        raise Withheld(
            f"The result of {tool} was withheld by content inspection: a number in it may not pass"
        ) from None


class ToolGuard:
    """Inspects the calls of a server's tools.

    There is no task to keep originals in: what is redacted here can't be put back. Decisions go to the log (never what
    was found), the metrics and the span.
    """

    def __init__(self, server: str, screen: Screen, policy: Policy = DEFAULT) -> None:
        described = Agent(name=server, version="", description="", publisher="", screening=policy)
        self._guard = Guard(described, screen, Vault(server, secrets.token_bytes(32)))
        self.start = screen.start

    def inspected(self, tool: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        """The same tool, whose arguments (by name) and result are inspected. Raises Withheld, ScreeningFailed."""
        result = TypeAdapter(get_type_hints(tool)["return"])

        @functools.wraps(tool)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            asked = await self._passed(tool.__name__, dict(kwargs), Direction.IN)
            found = tool(*args, **asked)
            plain = result.dump_python(found, mode="json")
            told = await self._passed(tool.__name__, plain, Direction.OUT)
            return found if told is plain else _as(result, told, tool.__name__)

        return call

    async def _passed(self, tool: str, value: Any, direction: Direction) -> Any:  # noqa: ANN401 -- JSON
        passed, outcome = await inspect(self._guard, value, direction, tool=tool)
        for _, _, what, decided, _ in outcome.records:
            for action, kind, entity, _, place, count in decided:
                log.info("screened %s: %s %s %s at %s, %d times", what, action, kind, entity, place, count)
        if outcome.withheld:
            raise Withheld(outcome.withheld)
        return passed
