"""One entry of a slot's log, and the head that a checkpoint leaves: what they say, and their bytes.

slot:{k}:{n}  [FORMAT, nonce, holder or None, [[tenant, owner, lines] …], [ids on, ids off to-do list],
              the same for the outbox, {key: tombstone}, [records of the audit, digest of the last],
              [[task id, n, digest] …]]: see Announcement
slot:{k}      [FORMAT, n, holder, to-do pages, outbox pages, before, claims, owners pages, audit]: see SlotHead
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from sidecard.errors import LogBroken
from sidecard.tasks.index import Line, Owner
from sidecard.tasks.trail import Link, Mark

FORMAT = 2
"""Version of the bytes. A reader refuses what it doesn't know rather than guess; 1 had no audit."""


def slot_key(number: int, n: int | None = None) -> str:
    """Key of a slot's head, or of its entry n."""
    return f"slot:{number}" if n is None else f"slot:{number}:{n}"


def beat_key(number: int) -> str:
    """Key of the sign of life of a slot's holder."""
    return f"beat:{number}"


@dataclass(frozen=True, slots=True)
class Announcement:
    """Entry `n` of a task's log, which is written after the slot's, and its `digest`."""

    task_id: str
    n: int
    digest: bytes


def digest(data: bytes) -> bytes:
    """What tells an announced log entry from whatever else may stand in its place."""
    return hashlib.blake2b(data, digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """What a batch adds to its slot: lines of lists, and names on (True) or off (False) the to-do list and the outbox.

    With a `holder` the slot is held by that one from then on. `tombstones` are stored under their keys, too. The `link`
    goes into the audit's trail. What is `announced` is written afterwards, if this process lives and nobody is faster.
    """

    holder: str | None = None
    lines: Mapping[Owner, list[Line]] = field(default_factory=dict)
    todo: Mapping[str, bool] = field(default_factory=dict)
    outbox: Mapping[str, bool] = field(default_factory=dict)
    tombstones: Mapping[str, bytes] = field(default_factory=dict)
    link: Link = field(default_factory=Link)
    announced: Sequence[Announcement] = ()

    def pack(self) -> bytes:
        """The entry's bytes, with a nonce that tells this writer's from anybody else's: a retry sends the very same."""
        lists = [[*owner, [line.pack() for line in more]] for owner, more in self.lines.items()]
        todo, outbox = _ids(self.todo), _ids(self.outbox)
        audited = [list(self.link.records), self.link.digest] if self.link.records else None
        announced = [[each.task_id, each.n, each.digest] for each in self.announced]
        packed: bytes = msgpack.packb(
            [FORMAT, secrets.token_bytes(8), self.holder, lists, todo, outbox, self.tombstones, audited, announced]
        )
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> "SlotEntry":
        """Raises LogBroken on an unknown format."""
        _, _, holder, lists, todo, outbox, tombstones, *more = _unpack(data)
        lines = {(tenant, owner): [Line(*line) for line in lines] for tenant, owner, lines in lists}
        link = Link(*more[0]) if more and more[0] else Link()
        announced = [Announcement(*each) for each in more[1]] if more[1:] else []
        return cls(holder, lines, _changes(todo), _changes(outbox), tombstones, link, announced)


@dataclass(frozen=True, slots=True)
class SlotHead:
    """A slot as its last checkpoint left it: all up to entry `n` is in pages, of which there are so many.

    All up to entry `before` is deleted but the `claims`, with which holders came: entries with their times, UTC in
    milliseconds. `audit` says how far the pages of its audit go.
    """

    n: int = 0
    holder: str = ""
    todo: int = 0
    outbox: int = 0
    before: int = 0
    claims: list[tuple[int, int]] = field(default_factory=list)
    owners: int = 0
    audit: Mark = field(default_factory=Mark)

    def pack(self) -> bytes:
        """As it is stored."""
        audit = [self.audit.number, self.audit.digest, self.audit.first, self.audit.last]
        packed: bytes = msgpack.packb(
            [FORMAT, self.n, self.holder, self.todo, self.outbox, self.before, self.claims, self.owners, audit]
        )
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> "SlotHead":
        """Raises LogBroken on an unknown format."""
        _, n, holder, todo, outbox, before, claims, owners, *audit = _unpack(data)
        mark = Mark(*audit[0]) if audit else Mark()
        return cls(n, holder, todo, outbox, before, [(n, at) for n, at in claims], owners, mark)


def _ids(changes: Mapping[str, bool]) -> list[list[str]]:
    return [[t for t, on in changes.items() if on], [t for t, on in changes.items() if not on]]


def _changes(ids: list[list[str]]) -> dict[str, bool]:
    return dict.fromkeys(ids[0], True) | dict.fromkeys(ids[1], False)


def _unpack(data: bytes) -> list[Any]:
    unpacked: list[Any] = msgpack.unpackb(data)
    if unpacked[0] not in (1, FORMAT):
        raise LogBroken(f"a slot has format {unpacked[0]}, this version reads {FORMAT}: upgrade this replica")
    return unpacked
