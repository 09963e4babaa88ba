"""Reading a task back from its log."""

from collections.abc import Callable

from sidecard.tasks.entry import Entry, head_key, log_key
from sidecard.tasks.state import FoldedTask
from sidecard.tasks.store import Reads
from sidecard.tasks.tombstone import Tombstone

FIRST_READ = 4
READ_AHEAD = 32
"""Entries read at once: few at first, since most tasks are short."""


async def load(store: Reads, task_id: str) -> FoldedTask | None:
    """Fold a task from its log, or None where there is none, or one that has expired.

    Raises LogBroken, StoreUnavailable.
    """
    first = [log_key(task_id, n) for n in range(1, FIRST_READ + 1)]
    stored = await store.read([head_key(task_id), *first])
    if Tombstone.of(stored.get(first[0])) is not None:
        return None
    folded = FoldedTask()
    head = stored.get(head_key(task_id))
    if head is not None and (snapshot := await _snapshot(store, task_id, int(head.decode()))) is not None:
        folded = snapshot
    elif _fold_in(first, stored, folded.apply):
        return folded if folded.n else None
    await catch_up(store, task_id, folded, folded.apply)
    return folded if folded.n else None


async def catch_up(store: Reads, task_id: str, folded: FoldedTask, take: Callable[[Entry], None]) -> None:
    """Let `take` fold all entries after `folded.n`, in order."""
    ahead = FIRST_READ
    while True:
        keys = [log_key(task_id, folded.n + i) for i in range(1, ahead + 1)]
        if _fold_in(keys, await store.read(keys), take):
            return
        ahead = min(ahead * 2, READ_AHEAD)


async def read_log(store: Reads, task_id: str) -> tuple[FoldedTask, list[Entry]]:
    """A task with all entries of its log, from the first, each checked to follow the one before.

    Empty where there is no task, or one that has expired. Raises LogBroken, StoreUnavailable.
    """
    folded = FoldedTask()
    entries: list[Entry] = []

    def take(entry: Entry) -> None:
        folded.apply(entry)
        entries.append(entry)

    key = log_key(task_id, 1)
    if Tombstone.of((await store.read([key])).get(key)) is None:
        await catch_up(store, task_id, folded, take)
    return folded, entries


def _fold_in(keys: list[str], stored: dict[str, bytes], take: Callable[[Entry], None]) -> bool:
    """Fold what is there of these keys; True when the log ends within them."""
    for key in keys:
        if key not in stored:
            return True
        take(Entry.unpack(stored[key]))
    return False


async def _snapshot(store: Reads, task_id: str, n: int) -> FoldedTask | None:
    """The task after entry n, which should hold a snapshot of what came before; None when it doesn't."""
    key = log_key(task_id, n)
    data = (await store.read([key])).get(key)
    if data is None:
        return None
    entry = Entry.unpack(data)
    packed = next((record[1] for record in entry.records if record[0] == "snapshot"), None)
    if packed is None:
        return None
    folded = FoldedTask.restore(packed)
    folded.apply(entry)
    return folded
