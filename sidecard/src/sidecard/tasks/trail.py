"""A slot's audit trail: numbered records without a gap, chained by their digests.

audit:{k}:{page}  [FORMAT, number of its first record, time of its newest, digest before it, [record …], seal]

What the slot's entries bring since the last checkpoint stands in these, and is in a page from the next one on. Each
record's digest is the SHA-256 of the digest before it and its bytes; every page names the digest that it goes on from,
the slot's head and entries the last one: what is altered or missing breaks the chain. Each page is sealed by the agent
as it is written (see seals.py): a chain made anew lacks that.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgpack

from sidecard.errors import LogBroken
from sidecard.seals import Seals
from sidecard.tasks.act import Act, correction, now, unpack
from sidecard.vouching import NotBelieved

log = logging.getLogger("sidecard.tasks")

FORMAT = 2
"""Version of a page's bytes. A reader refuses what it doesn't know rather than guess; 1 had no seals."""
SEAL_SECONDS = 60.0
"""How long a record may be in no page, and so under no seal, where the agent seals."""


@dataclass(frozen=True, slots=True)
class Link:
    """Records on their way into a trail, and the digest of the last of them."""

    records: Sequence[bytes] = ()
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the pages of a trail go, as a slot's head has it: their last record's number and digest; which pages."""

    number: int = 0
    digest: bytes = b""
    first: int = 1
    last: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Records that a checkpoint has moved into a page of their own."""

    first: int
    newest: int
    before: bytes
    records: Sequence[bytes]
    seal: str = ""

    def pack(self) -> bytes:
        """As it is stored."""
        packed: bytes = msgpack.packb([FORMAT, self.first, self.newest, self.before, list(self.records), self.seal])
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> "Page":
        """Raises LogBroken on bytes that are not a page of a known format."""
        try:
            version, *values = msgpack.unpackb(data)
            if version in (1, FORMAT):
                return cls(*values)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise LogBroken("a page of the audit is unreadable: was the state store's data changed by hand?") from error
        raise LogBroken(f"a page of the audit has format {version}, this version reads {FORMAT}: upgrade this replica")


@dataclass(frozen=True, slots=True)
class TrailChange:
    """A trail as a checkpoint will leave it, with what to write and to delete for it."""

    mark: Mark
    writes: dict[str, bytes]
    deletes: list[str]


class Trail:
    """The trail of one slot: its pages as of the last checkpoint, and the records that came since."""

    def __init__(self, slot: int, mark: Mark | None = None, seals: Seals | None = None, seal: str = "") -> None:
        """`seal` is of the last page. With `seals` each page from now on has one."""
        self._slot = slot
        self._seals = seals
        self._oldest = 0.0
        self._mark = self._stored(mark)
        self.number = self._mark.number
        self.digest = self._mark.digest
        self.recent: list[bytes] = []
        """Records that came since the last checkpoint."""
        self._since = self._vouched(seal)

    @property
    def due(self) -> bool:
        """Whether records have been under no seal for so long that they should go into a page."""
        return bool(self._seals and self.recent) and time.monotonic() - self._oldest > SEAL_SECONDS

    @property
    def pages(self) -> range:
        """The numbers of its pages."""
        return range(self._mark.first, self._mark.last + 1)

    @property
    def paged(self) -> Mark:
        """How far the pages go."""
        return self._mark

    def link(self, replica: str, acts: Iterable[Act], void: Iterable[int] = ()) -> Link:
        """The records of these acts, and of those that take back earlier ones; the trail stays as it is until `take`.

        Costs a digest each.
        """
        records = [act.pack(replica) for act in acts]
        records += [correction(now(), replica, number) for number in void]
        return Link(records, chained(self.digest, records)) if records else Link()

    def take(self, link: Link) -> None:
        """These records came with the next entry of the slot."""
        if link.records:
            self._oldest = self._oldest if self.recent else time.monotonic()
            self.number += len(link.records)
            self.digest = link.digest
            self.recent.extend(link.records)

    def newest(self) -> int | None:
        """The time of the newest of the records that are in no page yet; None when there are none."""
        return max((unpack(record)[0] for record in self.recent), default=None)

    def stage(self, link: Link, forget: int = 0) -> TrailChange:
        """What a checkpoint with the entry that brings this will make of it, which also forgets pages up to one."""
        records = [*self.recent, *link.records]
        first = max(self._mark.first, forget + 1)
        deletes = [audit_key(self._slot, page) for page in range(self._mark.first, first)]
        if not records:
            mark = Mark(self._mark.number, self._mark.digest, first, self._mark.last)
            return TrailChange(mark, {}, deletes)
        last = self._mark.last + 1
        newest = max(unpack(record)[0] for record in records)
        mark = Mark(self._mark.number + len(records), link.digest or self.digest, first, last)
        seal = self._seals.make(self._slot, mark.number, mark.digest, self._since) if self._seals else ""
        page = Page(self._mark.number + 1, newest, self._mark.digest, records, seal)
        return TrailChange(mark, {audit_key(self._slot, last): page.pack()}, deletes)

    def settle(self, change: TrailChange) -> None:
        """What was staged is stored."""
        self._mark, self.recent = change.mark, []

    def _vouched(self, seal: str) -> int:
        """The first record that the agent vouches for: what it finds without a seal of its own is none of them.

        Else whoever has rewritten the store would have the agent itself sign that.
        """
        if self._seals is None or not self._mark.number:
            return 1
        try:
            said = self._seals.read(seal, self._slot)
            if (said.number, said.digest) == (self._mark.number, self._mark.digest):
                return said.since
            why = "its seal is of something else"
        except NotBelieved as error:
            why = str(error)
        log.error(
            "the audit up to record %d of slot %d is not as this agent has sealed it: %s. Was the state store's data "
            "changed by hand? `sidecard audit --verify` tells more",
            self._mark.number,
            self._slot,
            why,
        )
        return self._mark.number + 1

    def _stored(self, mark: Mark | None) -> Mark:
        """What the slot's head has; a trail without any records goes on from the slot's own name."""
        if mark is None or not mark.digest:
            return Mark(digest=origin(self._slot))
        return mark


def origin(slot: int) -> bytes:
    """What a slot's first record goes on from, so that no slot's records pass for another's."""
    return hashlib.sha256(b"sidecard audit %d" % slot).digest()


def chained(digest: bytes, records: Iterable[bytes]) -> bytes:
    """The digest of the last of these records, the first of which goes on from `digest`."""
    for record in records:
        digest = hashlib.sha256(digest + record).digest()
    return digest


def audit_key(slot: int, page: int) -> str:
    """Key of a page of a slot's trail."""
    return f"audit:{slot}:{page}"
