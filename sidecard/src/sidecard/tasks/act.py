"""What a caller did, or was refused, for the audit: who, with which right, to which task; never what was said."""

import time
from dataclasses import dataclass, field, fields, replace
from typing import Any

import msgpack
from a2a.server.context import ServerCallContext

OK = "ok"
REPEATED = "repeated"
"""The same message was taken before; nothing more came of it."""
REFUSED = "refused: "
"""Begins the outcome of what was refused; the reason follows."""
DROPPED = "dropped"
"""The outcome of records that there was no room for while the store was down: how many, and nothing else of them."""
MOST_CHARACTERS = 256
"""Of one field: some are what a caller says, as the tenant that it was refused in."""
KEY = "act"
"""Where a call's context carries its act."""
_VOID = 3
"""How many values a correction has."""


def now() -> int:
    """UTC in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True, eq=False)
class Act:
    """One operation of one caller.

    `at` is UTC in milliseconds; `identity` how the caller was proven, `subject` on whose behalf it acted, `right` what
    allowed it; `trace` a W3C trace id in hexadecimal, `count` how many there were of the same kind within a second.

    An act that changes something is stored with what it changes, in one write, which makes it `recorded`.
    """

    operation: str
    at: int = field(default_factory=now)
    caller: str = ""
    identity: str = ""
    subject: str = ""
    tenant: str = ""
    task: str = ""
    skill: str = ""
    right: str = ""
    outcome: str = OK
    trace: str = ""
    count: int = 1
    recorded: bool = False

    @property
    def kept(self) -> bool:
        """Whether it is of an audit at all; see `act_of`."""
        return bool(self.operation)

    @property
    def refused(self) -> bool:
        """Whether it came to nothing."""
        return self.outcome.startswith(REFUSED)

    def kind(self) -> tuple[str, ...]:
        """What acts have in common that are counted instead of listed."""
        whose = (self.caller, self.identity, self.subject, self.tenant)
        return (*whose, self.operation, self.task, self.skill, self.right, self.outcome)

    def outline(self) -> "Act":
        """The same without what a caller can make up at will, where not all of that can be kept."""
        return replace(self, task="", skill="", tenant="", subject=self.caller)

    def pack(self, replica: str) -> bytes:
        """Its bytes in the trail of this replica's slot."""
        names = [value[:MOST_CHARACTERS] for value in self.kind()]
        packed: bytes = msgpack.packb([self.at, replica, *names, bytes.fromhex(self.trace), self.count])
        return packed


@dataclass(frozen=True, slots=True)
class Recorded:
    """An act as it stands in the trail: in which slot, in which place, by which replica."""

    slot: int
    number: int
    replica: str
    act: Act

    def as_values(self) -> dict[str, Any]:
        """For programs."""
        act = {one.name: getattr(self.act, one.name) for one in fields(self.act) if one.name != "recorded"}
        return {"slot": self.slot, "number": self.number, "replica": self.replica, **act}


def correction(at: int, replica: str, number: int) -> bytes:
    """The bytes of a record that takes back an earlier one: another replica was first, so nothing came of that."""
    packed: bytes = msgpack.packb([at, replica, number])
    return packed


def unpack(data: bytes) -> tuple[int, str, Act | int]:
    """When a record was made, by whom, and the act, or the number of the record that it takes back."""
    values = msgpack.unpackb(data)
    if len(values) == _VOID:
        at, replica, number = values
        return at, replica, int(number)
    at, replica, caller, identity, subject, tenant, operation, task, skill, right, outcome, trace, count = values
    act = Act(operation, at, caller, identity, subject, tenant, task, skill, right, outcome, trace.hex(), count)
    return at, replica, act


def act_of(context: ServerCallContext) -> Act:
    """The act that a call is; one that nobody keeps, where no audit is."""
    act = context.state.get(KEY)
    return act if isinstance(act, Act) else Act("")
