"""Quotas: how many requests a second, and how many at once, one caller and one tenant may have on a replica.

They keep one from taking the place of all. What is refused comes to nothing and says when to try again; it is refused
before its body is read, as far as the caller is known then.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from sidecard.refusals import TooManyRequests

MOST_USERS = 10_000
"""Callers and tenants remembered; those who are idle are forgotten first."""
IDLE_SECONDS = 60.0
LONGEST_WAIT = 60
"""Seconds that anybody is told to wait at most."""
STRANGERS = "callers that we do not know"


class Quota(BaseModel):
    """What one may have; null is without a limit. As in agents/callers.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float | None = Field(default=None, gt=0, description="Requests a second, over some time.")
    burst: int | None = Field(default=None, ge=1, description="Requests at once after a pause; else twice the rate.")
    concurrent: int | None = Field(default=None, ge=1, description="Requests that are being answered; no streams.")
    streams: int | None = Field(default=None, ge=1, description="Streams that are open.")

    def over(self, other: "Quota") -> "Quota":
        """This one, with what it does not say as the other has it."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        if "rate" in said:
            said.setdefault("burst", None)
        return other.model_copy(update=said)

    @property
    def room(self) -> float:
        """Requests at once after a pause."""
        return float(self.burst or max(1.0, 2 * (self.rate or 0.0)))


EACH_CALLER = Quota(rate=1_000, concurrent=1_000, streams=4_000)
EACH_TENANT = Quota(rate=2_000, concurrent=2_000, streams=8_000)
UNKNOWN = Quota(rate=100)
"""So that nobody needs to think of quotas before somebody is a nuisance."""


class QuotasFile(BaseModel):
    """The part of agents/callers.yaml that is about everybody."""

    model_config = ConfigDict(extra="forbid")

    each_caller: Quota = Quota()
    each_tenant: Quota = Quota()
    tenants: dict[str, Quota] = Field(default_factory=dict)
    strangers: Quota = Quota()


@dataclass(slots=True)
class _User:
    """One caller or tenant: the requests that it may still make at once, as of a moment; and what it has open."""

    name: str
    quota: Quota
    left: float
    at: float
    concurrent: int = 0
    streams: int = 0
    refused: float = -math.inf

    def spend(self, now: float) -> None:
        """One request. Raises TooManyRequests."""
        rate = self.quota.rate
        if rate is None:
            return
        self.left = min(self.quota.room, self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1.0:
            raise self._refusal(f"make {rate:g} requests a second", (1.0 - self.left) / rate, now)
        self.left -= 1.0

    def open(self, now: float, *, stream: bool) -> None:
        """One request is being answered from now on. Raises TooManyRequests."""
        if stream:
            if self.quota.streams is not None and self.streams >= self.quota.streams:
                raise self._refusal(f"have {self.quota.streams} streams open", 1.0, now)
            self.streams += 1
        else:
            if self.quota.concurrent is not None and self.concurrent >= self.quota.concurrent:
                raise self._refusal(f"have {self.quota.concurrent} requests at once", 1.0, now)
            self.concurrent += 1

    def close(self, *, stream: bool) -> None:
        """It is answered."""
        if stream:
            self.streams -= 1
        else:
            self.concurrent -= 1

    def _refusal(self, what: str, seconds: float, now: float) -> TooManyRequests:
        wait = min(LONGEST_WAIT, max(1, math.ceil(seconds)))
        error = TooManyRequests(f"{self.name} may {what} here; try again in {wait} s", retry_after=wait)
        error.insistent = now - self.refused < 1.0
        self.refused = now
        return error

    def idle(self, now: float) -> bool:
        """Whether nothing is lost when it is forgotten."""
        return not self.concurrent and not self.streams and now - self.at > IDLE_SECONDS


class Quotas:
    """Who has had how much, on this replica. `clock` gives seconds."""

    def __init__(
        self,
        file: QuotasFile | None = None,
        callers: Mapping[str, Quota] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`callers` have quotas of their own; without a `file` those hold that nobody has to write down."""
        file = file or QuotasFile()
        self._clock = clock
        self._each = {"caller": file.each_caller.over(EACH_CALLER), "tenant": file.each_tenant.over(EACH_TENANT)}
        self._own = {"caller": callers or {}, "tenant": file.tenants}
        self._users: OrderedDict[tuple[str, str], _User] = OrderedDict()
        strangers = file.strangers.over(UNKNOWN)
        self._strangers = _User(STRANGERS, strangers, strangers.room, clock())

    def stranger(self) -> None:
        """One request of nobody known. Raises TooManyRequests."""
        self._strangers.spend(self._clock())

    def enter(self, caller: str) -> "Visit":
        """One request of this caller, until the visit ends. Raises TooManyRequests."""
        user = self._user("caller", caller, f"the caller {caller}")
        now = self._clock()
        user.spend(now)
        user.open(now, stream=False)
        return Visit(self, user)

    def tenant(self, name: str, *, stream: bool) -> _User:
        """One request in this tenant. Raises TooManyRequests."""
        user = self._user("tenant", name, f"the tenant {name}" if name else "the default tenant")
        now = self._clock()
        user.spend(now)
        user.open(now, stream=stream)
        return user

    def stream(self, caller: _User) -> None:
        """One request of this caller is for a stream. Raises TooManyRequests."""
        caller.open(self._clock(), stream=True)
        caller.close(stream=False)

    def _user(self, kind: str, name: str, said: str) -> _User:
        key, now = (kind, name), self._clock()
        user = self._users.get(key)
        if user is None:
            quota = self._own[kind].get(name, Quota()).over(self._each[kind])
            user = self._users[key] = _User(said, quota, quota.room, now)
            if len(self._users) > MOST_USERS:
                self._forget(now)
        self._users.move_to_end(key)
        return user

    def _forget(self, now: float) -> None:
        """Forget whoever is idle among those not seen for longest; if none is, the one that is open least."""
        for key in list(self._users)[: MOST_USERS // 10]:
            if self._users[key].idle(now):
                del self._users[key]
        if len(self._users) > MOST_USERS:
            self._users.popitem(last=False)


class Visit:
    """One request, which takes a place of its caller's, and of its tenant's from when that is known."""

    __slots__ = ("_caller", "_quotas", "_stream", "_tenant")

    def __init__(self, quotas: Quotas, caller: _User) -> None:
        self._quotas, self._caller = quotas, caller
        self._tenant: _User | None = None
        self._stream = False

    def goes_on(self, tenant: str | None, *, stream: bool) -> None:
        """It is known now where it is made, None for where its caller may not be, and whether it is for a stream.

        Raises TooManyRequests.
        """
        if stream:
            self._quotas.stream(self._caller)
            self._stream = True
        if tenant is not None:
            self._tenant = self._quotas.tenant(tenant, stream=stream)

    def ends(self) -> None:
        """It is answered."""
        self._caller.close(stream=self._stream)
        if self._tenant is not None:
            self._tenant.close(stream=self._stream)
