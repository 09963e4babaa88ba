"""What a replica stored after others had taken it for dead: on no list any more, and yet in its task's log.

That is only where a store decides key by key. There the slot's entry is first, and whoever takes the slot takes back
what of it has not come true by then; a replica that was frozen in between, and thaws, makes it come true all the same.
"""

import asyncio
from collections.abc import Sequence

from sidecard.tasks.batch import Append
from sidecard.tasks.index import Line, Owner
from sidecard.tasks.slots import Slot
from sidecard.tasks.store import StateStore

LOOK_SECONDS = 0.2


async def stored_late(store: StateStore, number: int, appends: Sequence[Append]) -> list[Append]:
    """Those of the last appends of a former holder of that slot which are stored now.

    Returns once the slot's next holder has decided which of them it takes back. Raises StoreUnavailable, LogBroken.
    """
    slot = await Slot.load(store, number)
    while any(slot.announces(append.task_id, append.n) for append in appends):
        await asyncio.sleep(LOOK_SECONDS)
        await slot.catch_up()
    stored = await store.read([append.key for append in appends])
    return [append for append in appends if stored.get(append.key) == append.data]


async def unlisted(store: StateStore, number: int, appends: Sequence[Append]) -> dict[Owner, list[Line]]:
    """The lines of these appends that were taken back. Raises StoreUnavailable, LogBroken."""
    slot = await Slot.load(store, number)
    lines: dict[Owner, list[Line]] = {}
    for append in appends:
        if append.line is not None and await (await slot.lists.of(append.owner)).took_back(store, append.line):
            lines.setdefault(append.owner, []).append(append.line)
    return lines
