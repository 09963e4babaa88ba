"""What inspecting a text can find, and what can be decided about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sidecard.errors import SidecardError


class Kind(StrEnum):
    """What a finding is."""

    INJECTION = "injection"
    PERSONAL = "personal"
    SECRET = "secret"  # noqa: S105 -- a word, no secret
    UNREAD = "unread"
    """Content that could not be read as text, so that nothing can be said of it."""


class Direction(StrEnum):
    """Which way a text goes, seen from the skill."""

    IN = "in"
    OUT = "out"


class Action(StrEnum):
    """What is done about a finding, mildest first. All but nothing found leaves a decision in the task's log."""

    ALLOW = "allow"
    FLAG = "flag"
    REDACT = "redact"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found in a text: its characters from `start` to `end`, and the rule that found it.

    `entity` says what it is in one word, such as EMAIL_ADDRESS or AWS_ACCESS_KEY.
    """

    kind: Kind
    entity: str
    rule: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about findings of one sort at one place. It never holds what was found, nor a hash of it."""

    action: Action
    kind: Kind
    entity: str
    rule: str
    place: str
    count: int = 1

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> "Decision":
        """From a task's log."""
        action, kind, *said = packed
        return cls(Action(action), Kind(kind), *said)

    def packed(self) -> list[str | int]:
        """As it is stored in a task's log."""
        return [self.action.value, self.kind.value, self.entity, self.rule, self.place, self.count]


class ScreeningFailed(SidecardError):
    """A text could not be inspected: too much of it, or the screen is not there. It then goes nowhere."""


class ScreenUnavailable(ScreeningFailed):
    """The screen does not answer now; the same may be inspected later."""


class Withheld(SidecardError):
    """Something was found that the skill's screening policy blocks."""
