"""The way in, whatever the binding: who calls, whether they have had their share, and what the audit is told of it."""

from types import TracebackType
from typing import Self

from sidecard.audit import Audit
from sidecard.callers import Caller, Claims, Identify
from sidecard.quotas import Quotas, Visit
from sidecard.refusals import TooManyRequests, Unauthenticated


class Door:
    """Lets verified callers in, within their quotas."""

    def __init__(self, identify: Identify, quotas: Quotas | None = None, audit: Audit | None = None) -> None:
        """Without `quotas` callers may do as much as they like; without an `audit` nobody is told of refusals here."""
        self._identify, self._quotas, self._audit = identify, quotas, audit

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
            return Admitted(caller, self._quotas.enter(caller.name) if self._quotas is not None else None, self._audit)
        except (Unauthenticated, TooManyRequests) as error:
            if self._audit is not None:
                self._audit.turned_away(error, caller)
            raise


class Admitted:
    """A request of a verified `caller`, while it is answered: use it with `with`."""

    __slots__ = ("_audit", "_visit", "caller")

    def __init__(self, caller: Caller, visit: Visit | None, audit: Audit | None) -> None:
        self.caller = caller
        self._visit, self._audit = visit, audit

    def goes_on(self, tenant: str, *, stream: bool) -> None:
        """The rest of its request is read. Who names a tenant that is not theirs takes nothing from it.

        Raises TooManyRequests.
        """
        if self._visit is None:
            return
        try:
            self._visit.goes_on(tenant if self.caller.may_use(tenant) else None, stream=stream)
        except TooManyRequests as error:
            if self._audit is not None:
                self._audit.turned_away(error, self.caller, tenant)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._visit is not None:
            self._visit.ends()
