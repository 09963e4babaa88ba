"""The next entry of a task's log, made of what waits to be stored, and all that is stored together with it."""

from collections.abc import Mapping

from sidecard.tasks.batch import Append
from sidecard.tasks.entry import Entry, Record, head_key
from sidecard.tasks.index import Line
from sidecard.tasks.state import TAKEN, FoldedTask

SNAPSHOT_EVERY = 256
SNAPSHOT_BYTES_PER_ENTRY = 256
"""A snapshot waits for at least that many entries, and for more the larger it is, so that all of them together grow
linearly with the log."""
MOST_SNAPSHOT_BYTES = 4_000_000


class NextEntry:
    """Makes one task's entries, one after the other."""

    def __init__(self, folded: FoldedTask, replica: str) -> None:
        self._replica = replica
        self._snapshot_due = folded.snapshot_at + _until_snapshot(folded.snapshot_bytes)
        self._hints: dict[str, bytes] = {}

    def make(self, folded: FoldedTask, records: list[Record], now: int, *, outsider: bool) -> Entry:
        """The entry with these records; `now` is UTC in milliseconds.

        Unless this replica is an `outsider` to the task it takes it over, where it isn't the owner yet.
        """
        leased = has_lease(records)
        handover = not outsider and (folded.owner_replica != self._replica or leased)
        added: list[Record] = [["lease", self._replica, TAKEN]] if handover and not leased else []
        if folded.n + 1 >= self._snapshot_due:
            added.insert(0, *self._snapshot(folded))
        return Entry(
            previous=folded.nonce,
            epoch=folded.epoch + 1 if handover else folded.epoch,
            at=max(now, folded.at + 1, *(record[1] for record in records if record[0] == "status")),
            records=[*added, *records] if folded.n else [*records, *added],
        )

    def append(
        self, folded: FoldedTask, meta: Mapping[str, str], entry: Entry, *, outsider: bool, published: bool
    ) -> Append:
        """What the journal is told of the entry; with `published` every event is due to somebody."""
        after = folded.preview(entry.records, published=published)
        line = None
        if after.status_at:  # progress too: lists are ordered by the time of the status
            line = Line(meta["task"], meta["context"], folded.state, after.state, after.status_at)
        return Append(
            task_id=meta["task"],
            n=folded.n + 1,
            data=entry.pack(),
            owner=(meta["tenant"], meta["owner"]),
            line=line,
            listed=None if outsider else after.must_move,
            contested=outsider or folded.n == 0 or entry.epoch != folded.epoch,
            hints=self._hints,
            due=after.due,
        )

    def stored(self, folded: FoldedTask) -> None:
        """The entry is stored and folded: the next one brings the hint of where a snapshot is."""
        self._hints = {head_key(folded.task.id): b"%d" % folded.n} if folded.snapshot_at == folded.n else {}

    def _snapshot(self, folded: FoldedTask) -> list[Record]:
        snapshot = folded.snapshot()
        self._snapshot_due = folded.n + 1 + _until_snapshot(len(snapshot))
        return [["snapshot", snapshot]] if len(snapshot) <= MOST_SNAPSHOT_BYTES else []


def has_lease(records: list[Record]) -> bool:
    """Whether the task changes hands with these records."""
    return any(record[0] == "lease" for record in records)


def _until_snapshot(size: int) -> int:
    return max(SNAPSHOT_EVERY, size // SNAPSHOT_BYTES_PER_ENTRY)
