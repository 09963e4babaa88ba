"""What a journal writes together: log entries, how far receivers have been told, what expires, and who did what."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sidecard.errors import StoreUnavailable, TaskConflict
from sidecard.tasks.act import Act
from sidecard.tasks.entry import log_key
from sidecard.tasks.index import Line, Owner
from sidecard.tasks.slots import Sweep
from sidecard.tasks.told import Told


@dataclass(slots=True, eq=False)
class Append:
    """One frozen log entry on its way to the store, with what must become true together with it.

    It is number `n`. `listed` says whether the task belongs on this replica's to-do list, None where that is another's
    business; `due`, whether webhooks must be told of it; `hints` speak of earlier entries, whose commit is certain.
    `acts` are the operations that it stores the changes of.
    """

    task_id: str
    n: int
    data: bytes
    owner: Owner
    line: Line | None
    listed: bool | None
    contested: bool
    due: bool = False
    hints: dict[str, bytes] = field(default_factory=dict)
    acts: Sequence[Act] = ()
    since: float = field(default_factory=time.monotonic)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = log_key(self.task_id, self.n)


@dataclass(slots=True, eq=False)
class Sweeping:
    """A sweep on its way to the store, and the lines that take what it expires out of the counts."""

    sweep: Sweep
    lines: Mapping[Owner, list[Line]]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


Write = Append | Told | Sweeping
"""Each has a future, `done`, which ends when it is stored, or tells why it was not, or may not be."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One write to the store; one sweep at the most. `acts` are those that change nothing."""

    appends: Sequence[Append] = ()
    told: Sequence[Told] = ()
    sweep: Sweeping | None = None
    acts: Sequence[Act] = ()

    @property
    def others(self) -> list[Told | Sweeping]:
        """What is no log entry."""
        return [*self.told, *([self.sweep] if self.sweep else [])]

    @property
    def size(self) -> int:
        """Bytes of its log entries."""
        return sum(len(append.data) for append in self.appends)


def end(error: TaskConflict | StoreUnavailable | None, *writes: Write) -> None:
    """Let those go on who wait for these writes: they are stored, or failed with this error."""
    for write in writes:
        if write.done.done():
            continue
        if error is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(error)
