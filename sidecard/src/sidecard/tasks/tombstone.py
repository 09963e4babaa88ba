"""What stands in a log's first place once its task has expired; `retention` puts it there.

log:{task}:1  MARK and [FORMAT, at, status_at, digest, n, beside], see Tombstone
"""

from dataclasses import dataclass
from typing import Self

import msgpack

from sidecard.errors import LogBroken, SidecardError
from sidecard.tasks.entry import head_key, log_key

MARK = b"expired:"
"""No entry begins like this, so that who does not know tombstones refuses to read on."""
FORMAT = 1


class TaskExpired(SidecardError):
    """The task of this message ended long ago, and is no longer kept."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Replaces entry 1, and with that ends the log: whatever is stored behind it is no entry any more.

    So a message that comes again is recognised by its `digest`, and a writer that thaws can create no entry that
    anybody would read. `at` is when the task expired, `status_at` the time of its last status, UTC in milliseconds;
    `n` was the log's last entry, and `beside` are the keys that stood beside the log.
    """

    at: int
    status_at: int
    digest: str
    n: int
    beside: tuple[str, ...] = ()

    def pack(self) -> bytes:
        """As it is stored."""
        packed: bytes = msgpack.packb([FORMAT, self.at, self.status_at, self.digest, self.n, self.beside])
        return MARK + packed

    @classmethod
    def of(cls, data: bytes | None) -> Self | None:
        """What is stored as entry 1, if it is a tombstone. Raises LogBroken for one of an unknown format."""
        if data is None or not data.startswith(MARK):
            return None
        version, at, status_at, digest, n, beside = msgpack.unpackb(data[len(MARK) :])
        if version != FORMAT:
            raise LogBroken(f"a tombstone has format {version}, this version reads {FORMAT}: upgrade this replica")
        return cls(at, status_at, digest, n, tuple(beside))

    def rest(self, task_id: str) -> list[str]:
        """Every key of the task's but the tombstone's own."""
        return [*(log_key(task_id, n) for n in range(2, self.n + 1)), head_key(task_id), *self.beside]
