"""The access tokens that the owners of tasks came with, while those run here: in memory, for nothing but exchange.

A token is never in the log nor on its way to another replica. One that is gone is asked for anew (see `waits`).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple

from sidecard.callers import Caller, Denied, Presented

MOST_TOKENS = 2_048
"""Of all owners together; beyond that whoever has the most loses their oldest."""
EARLY_SECONDS = 10.0
"""How long before its end a token is offered no more: it would run out on its way."""


class _Kept(NamedTuple):
    owner: str
    presented: Presented
    purge: asyncio.TimerHandle


class TaskTokens:
    """One token for each task: the last that its owner came with, until it expires, is revoked, or the task ends.

    `denied` says who is revoked, `clock` the time in seconds since 1970.
    """

    def __init__(
        self, denied: Denied | None = None, *, most: int = MOST_TOKENS, clock: Callable[[], float] = time.time
    ) -> None:
        self._denied, self._most, self._clock = denied or Denied(), most, clock
        self._kept: dict[str, _Kept] = {}
        self._of_owner: dict[str, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, meta: MutableMapping[str, str], caller: Caller) -> None:
        """Let a new task's record say that its owner came with a token that may be exchanged, and keep that."""
        if caller.token is not None and _is_whom_it_is_for(meta, caller):
            meta["exchange"] = caller.token.issuer
            self.keep(meta, caller)

    def keep(self, meta: Mapping[str, str], caller: Caller) -> None:
        """Keep what this caller came with for a task; not if the task is another's, or runs for somebody else.

        Who answers a question of another's task lends it no rights, nor does who speaks for others.
        """
        presented = caller.token
        if presented is None or not (came_with_token(meta) and _is_whom_it_is_for(meta, caller)):
            return
        task_id, seconds = meta["task"], presented.expires - EARLY_SECONDS - self._clock()
        self.forget(task_id)
        if seconds <= 0:
            return
        purge = asyncio.get_running_loop().call_later(seconds, self.forget, task_id)
        self._kept[task_id] = _Kept(caller.name, presented, purge)
        self._of_owner.setdefault(caller.name, OrderedDict())[task_id] = None
        if len(self._kept) > self._most:
            most = max(self._of_owner, key=lambda owner: len(self._of_owner[owner]))
            self.forget(next(iter(self._of_owner[most])))

    def of(self, task_id: str) -> Presented | None:
        """The token that this task may have exchanged now."""
        kept = self._kept.get(task_id)
        if kept is None or kept.presented.expires - EARLY_SECONDS <= self._clock():
            return None
        return None if self._denied.covers(kept.presented.marks) else kept.presented

    def forget(self, task_id: str) -> None:
        """The task has ended, or is run elsewhere; it need not have a token."""
        kept = self._kept.pop(task_id, None)
        if kept is None:
            return
        kept.purge.cancel()
        owned = self._of_owner[kept.owner]
        del owned[task_id]
        if not owned:
            del self._of_owner[kept.owner]

    def clear(self) -> None:
        """Forget all."""
        for task_id in list(self._kept):
            self.forget(task_id)


def came_with_token(meta: Mapping[str, str]) -> bool:
    """Whether whom a task is for started it with a token, so that they can be asked for another."""
    return "exchange" in meta


def _is_whom_it_is_for(meta: Mapping[str, str], caller: Caller) -> bool:
    return caller.name == caller.subject == meta["owner"] == meta["subject"]
