"""Acts that change nothing, reads and refusals, on their way into the audit: counted by kind, and bounded."""

from collections import Counter
from collections.abc import Iterable

from sidecard.errors import StoreUnavailable
from sidecard.tasks.act import DROPPED, Act

FLUSH_SECONDS = 1.0
"""How long one may wait for a write to go with."""
MOST = 10_000
"""Kinds that may wait, while the store is down, say."""
AT_ONCE = 1_000
"""Kinds that one write takes."""
NAMED = 32
"""Of what one caller is refused between two writes, so much is told in full; the rest is counted."""


class Sightings:
    """What waits to be written. Of one kind there is one, with a count and the time of the first."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, ...], Act] = {}
        self._named: Counter[str] = Counter()
        self._dropped = 0

    def __bool__(self) -> bool:
        return bool(self._waiting or self._dropped)

    def __contains__(self, act: Act) -> bool:
        """Whether an act, or another of its kind, waits."""
        return act.kind() in self._waiting

    def add(self, act: Act) -> None:
        """Have an act written soon.

        Raises StoreUnavailable when there is no room for one that was allowed: what can't be recorded may not happen.
        Of refusals, which gave nothing away, there then is a number.
        """
        if act.refused:
            self._refused(act)
        elif not self._count(act):
            raise StoreUnavailable("the audit can't be written, as the state store is down; try again later")

    def take(self) -> list[Act]:
        """What goes into the next write."""
        kinds = list(self._waiting)[:AT_ONCE]
        acts = [self._waiting.pop(kind) for kind in kinds]
        self._named.clear()
        if self._dropped:
            acts.append(Act("", outcome=DROPPED, count=self._dropped))
            self._dropped = 0
        return acts

    def put_back(self, acts: Iterable[Act]) -> None:
        """These were taken, and not written."""
        for act in acts:
            kind = act.kind()
            if kind in self._waiting:
                act.count += self._waiting[kind].count
            self._waiting[kind] = act

    def _refused(self, act: Act) -> None:
        if act.kind() not in self._waiting:
            self._named[act.caller] += 1
            if self._named[act.caller] > NAMED:
                act = act.outline()
        if not self._count(act):
            self._dropped += act.count

    def _count(self, act: Act) -> bool:
        """Whether there was room for it."""
        kind = act.kind()
        if kind in self._waiting:
            self._waiting[kind].count += act.count
        elif len(self._waiting) < MOST:
            self._waiting[kind] = act
        else:
            return False
        return True
