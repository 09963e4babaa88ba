"""What a replica stored after others had taken it for dead: on no list any more, and yet in its task's log.

That is only where a store decides key by key. There the slot's entry is first, and whoever takes the slot takes back
what of it has not come true by then; a replica that was frozen in between, and thaws, makes it come true all the same.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sidecard.tasks.batch import Append
from sidecard.tasks.index import Line, Owner
from sidecard.tasks.slots import Slot
from sidecard.tasks.store import StateStore

LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Late:
    """What a replica was writing last as the holder of slot `number`; `listed` once its lines are counted again."""

    number: int
    appends: Sequence[Append]
    listed: bool = False

    async def stored(self, store: StateStore) -> list[Append]:
        """Those of them that are stored, as soon as the slot's next holder has decided what it takes back.

        Raises StoreUnavailable, LogBroken.
        """
        slot = await Slot.load(store, self.number)
        while any(slot.announces(append.task_id, append.data) for append in self.appends):
            await asyncio.sleep(LOOK_SECONDS)
            await slot.catch_up()
        stored = await store.read([append.key for append in self.appends])
        return [append for append in self.appends if stored.get(append.key) == append.data]

    async def unlisted(self, store: StateStore, stored: Sequence[Append]) -> dict[Owner, list[Line]]:
        """The lines of these that were taken back. Raises StoreUnavailable, LogBroken."""
        slot = await Slot.load(store, self.number)
        lines: dict[Owner, list[Line]] = {}
        for append in stored:
            if append.line is not None and await (await slot.lists.of(append.owner)).took_back(store, append.line):
                lines.setdefault(append.owner, []).append(append.line)
        return lines
