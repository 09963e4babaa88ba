"""A verified caller: everything after the edge asks it, and nothing else, who calls and what it may do."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from a2a.auth.user import User

from sidecard.callers.claims import Claims


@dataclass(frozen=True, slots=True)
class Presented:
    """An access token that a caller came with: for memory alone, and to be exchanged at its own issuer (RFC 8693).

    `issuer` is the URL that it has as `iss`, `expires` its end in seconds since 1970, `marks` the ways in which whose
    it is can be revoked.
    """

    value: str = field(repr=False)
    issuer: str
    expires: float = math.inf
    marks: tuple[str, ...] = ()


Bearing = Callable[[], Presented | None]
"""Gives the token by which somebody's rights may travel now; None when none is at hand (any more)."""


def bearing_none() -> Presented | None:
    """For whoever calls with rights of their own alone."""
    return None


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified identity and what it may do at this agent. `subject` is on whose behalf it acts, usually itself.

    `identity` is how it was proven, for the audit: `sidecar:desk`, `key:manager`, `token:company#ada`; "" for a caller
    that is not here now, while its task goes on. `actor` uses somebody's token, exchanged for that (RFC 8693), or "".
    `marks` are all the ways in which it can be revoked, see `denied`. `narrowed` says that its token gives it less
    than it holds, so that `scopes` are not what `Callers.scopes_of` says. `token` is what it came with, if it did.
    """

    name: str
    subject: str
    scopes: frozenset[str]
    tenants: frozenset[str] = frozenset({""})
    speaks_for_others: bool = False
    identity: str = ""
    actor: str = ""
    marks: tuple[str, ...] = field(default=(), compare=False)
    narrowed: bool = False
    token: Presented | None = field(default=None, compare=False, repr=False)

    def may_use(self, tenant: str) -> bool:
        """Whether it may work in this tenant; "" is the default one."""
        return tenant in self.tenants

    def on_behalf_of(self, subject: str) -> "Caller":
        """The same caller for somebody else, where it may speak for others; otherwise itself."""
        return replace(self, subject=subject) if subject and self.speaks_for_others else self


Identify = Callable[[Claims], Awaitable[Caller | None]]
"""The caller behind a request's claims; None for nobody we know."""


class CallerUser(User):
    """A Caller as the SDK's routes carry a user."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @property
    def is_authenticated(self) -> bool:
        """Always: who is not verified does not get this far."""
        return True

    @property
    def user_name(self) -> str:
        """The verified name."""
        return self.caller.name
