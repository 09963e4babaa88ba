"""The way in, whatever the binding: who calls, whether they have had their share, and what the audit is told of it.

Saying no costs something too: who sends without a pause could keep an agent busy with it. So who does not wait, though
told to, waits for the answer.
"""

import asyncio
from types import TracebackType
from typing import Self

from a2a.utils.errors import A2AError

from sidecard.audit import Audit
from sidecard.callers import Caller, Claims, Identify
from sidecard.quotas import Quotas, Visit
from sidecard.refusals import TooManyRequests, Unauthenticated

HELD_SECONDS = 1.0
"""How long somebody waits to be refused who was just refused."""
MOST_HELD = 1_000
"""How many may wait so; others are refused at once."""


class Door:
    """Lets verified callers in, within their quotas."""

    def __init__(self, identify: Identify, quotas: Quotas | None = None, audit: Audit | None = None) -> None:
        """Without `quotas` callers may do as much as they like; without an `audit` nobody is told of refusals here."""
        self._identify, self._quotas, self._audit = identify, quotas, audit
        self._held = 0

    async def admit(self, claims: Claims) -> "Admitted":
        """The caller, before anything else of its request is read.

        Raises Unauthenticated, TooManyRequests; Unavailable while callers can't be verified.
        """
        caller = await self._identify(claims)
        try:
            if caller is None:
                if self._quotas is not None:
                    self._quotas.stranger()
                raise Unauthenticated
            return Admitted(self, caller, self._quotas.enter(caller.name) if self._quotas is not None else None)
        except (Unauthenticated, TooManyRequests) as error:
            await self.turn_away(error, caller)
            raise

    async def turn_away(self, error: A2AError, caller: Caller | None, tenant: str = "") -> None:
        """Tell the audit that somebody is refused; returns when it is time to tell them."""
        if self._audit is not None:
            self._audit.turned_away(error, caller, tenant)
        if isinstance(error, TooManyRequests) and error.insistent and self._held < MOST_HELD:
            self._held += 1
            try:
                await asyncio.sleep(HELD_SECONDS)
            finally:
                self._held -= 1


class Admitted:
    """A request of a verified `caller`, while it is answered: use it with `with`."""

    __slots__ = ("_door", "_visit", "caller")

    def __init__(self, door: Door, caller: Caller, visit: Visit | None) -> None:
        self.caller = caller
        self._door, self._visit = door, visit

    async def goes_on(self, tenant: str, *, stream: bool) -> None:
        """The rest of its request is read. Who names a tenant that is not theirs takes nothing from it.

        Raises TooManyRequests.
        """
        if self._visit is None:
            return
        try:
            self._visit.goes_on(tenant if self.caller.may_use(tenant) else None, stream=stream)
        except TooManyRequests as error:
            await self._door.turn_away(error, self.caller, tenant)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._visit is not None:
            self._visit.ends()
