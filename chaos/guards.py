"""The engine with one of its guards off, to show that chaos would find what it lets through.

Nothing of this is in the library: a replica that is told so changes the classes of its own process.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.batch import Append
from sidecard.tasks.commits import Commits
from sidecard.tasks.identity import TaskIds
from sidecard.tasks.journal import Journal
from sidecard.tasks.patience import patiently
from sidecard.tasks.replicas import Replicas
from sidecard.tasks.slots import Slot, Staged
from sidecard.tasks.store import DaprStateStore

LATE_SECONDS = 0.3
PROBE = "probe:"


def no_create() -> None:
    """Create-if-absent is off: the last writer wins. The probe at start still sees a store that decides."""
    write = DaprStateStore.write

    async def overwrite(
        self: DaprStateStore,
        creates: Sequence[tuple[str, bytes]],
        upserts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
    ) -> None:
        probes = [(key, value) for key, value in creates if key.startswith(PROBE)]
        others = {key: value for key, value in creates if not key.startswith(PROBE)}
        await write(self, probes, {**upserts, **others}, deletes)

    _put(DaprStateStore, "write", overwrite)


def no_fencing() -> None:
    """Fencing is off: a replica whose slot was taken over writes on there, and does not notice."""

    async def create(
        self: Commits,
        staged: Staged,
        creates: list[tuple[str, bytes]],
        upserts: Mapping[str, bytes],
        deletes: Sequence[str],
    ) -> bool:
        try:
            await self.store.write(creates, {**upserts, staged.key: staged.data}, deletes)
        except (TaskConflict, StoreUnavailable):
            stored = await patiently(partial(self.store.read, [staged.key]))
            return stored.get(staged.key) == staged.data
        return True

    async def is_taken(self: Replicas, slot: Slot) -> bool:
        return False

    _put(Commits, "_create", create)
    _put(Replicas, "_is_taken", is_taken)


def no_deduplication() -> None:
    """Deduplication is off: a repeated message is a new one."""
    _put(TaskIds, "of", lambda *_: secrets.token_hex(16))


def no_commit() -> None:
    """What is acknowledged is stored a little later."""
    append = Journal.append

    def promise(self: Journal, entry: Append) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        loop.call_later(LATE_SECONDS, append, self, entry)
        kept: asyncio.Future[None] = loop.create_future()
        kept.set_result(None)
        return kept

    _put(Journal, "append", promise)


def no_amends() -> None:
    """What a dead replica announced, and did not live to write, is not taken back."""

    async def amend(self: Slot) -> None:
        return

    _put(Slot, "amend", amend)


def _put(owner: type, name: str, function: Callable[..., Any]) -> None:
    """In the place of what is there: a guard that has moved would stay on, and nothing would be shown."""
    getattr(owner, name)
    setattr(owner, name, function)


OFF: dict[str, Callable[[], None]] = {
    "create": no_create,
    "fencing": no_fencing,
    "deduplication": no_deduplication,
    "commit": no_commit,
    "amends": no_amends,
}
"""Each guard, and what turns it off in this process."""
