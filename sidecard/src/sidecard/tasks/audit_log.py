"""The audit read back: the trails of all slots as one, in order, each checked against its chain when asked."""

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecard.errors import LogBroken
from sidecard.seals import Seals
from sidecard.tasks.act import Act, Recorded, unpack
from sidecard.tasks.slot_entry import slot_key
from sidecard.tasks.slots import Slot
from sidecard.tasks.store import StateStore
from sidecard.tasks.trail import Page, audit_key, chained, origin
from sidecard.vouching import NotBelieved

READ_AT_ONCE = 16
TRIES = 3
"""How often a trail is read whose pages are being forgotten meanwhile."""


class End(NamedTuple):
    """How far a slot's trail went once, in digits of hexadecimal what stood for all of it: somebody wrote that down."""

    slot: int
    number: int
    digest: str


@dataclass(slots=True)
class Trailed:
    """What is read of one slot's trail, oldest first, and what is wrong with it.

    `number` and `digest` are of its last record: as long as the chain holds, that digest vouches for all before it.
    Up to record `sealed` the agent has signed for it, or 0.
    """

    slot: int
    number: int
    digest: bytes
    sealed: int = 0
    records: list[Recorded] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def read_audit(
    store: StateStore,
    *,
    since: int = 0,
    verify: bool = False,
    seals: Seals | None = None,
    ends: Collection[End] = (),
) -> list[Trailed]:
    """The trails of all slots from `since` (UTC in milliseconds) on.

    To `verify` one, all of it is read: a record that was altered, taken out or put in is a problem. With `seals` it is
    one too that the agent has not signed for what is in pages, and with `ends` that one of them is no longer in the
    chain: only they tell that the last records of all were taken away. Raises StoreUnavailable, LogBroken.
    """
    trails: list[Trailed] = []
    while slot_key(len(trails)) in await store.read([slot_key(len(trails))]):
        trails.append(await _trail(store, len(trails), since, verify=verify, seals=seals, ends=ends))
    if lost := sorted({end.slot for end in ends if end.slot >= len(trails)}):
        raise LogBroken(f"the audit of slot {lost[0]} is gone altogether")
    return trails


def in_order(trails: Sequence[Trailed]) -> Iterator[Recorded]:
    """All their records by time; those of one slot stay in their order."""
    return heapq.merge(*(trail.records for trail in trails), key=lambda recorded: recorded.act.at)


async def _trail(
    store: StateStore, number: int, since: int, *, verify: bool, seals: Seals | None, ends: Collection[End]
) -> Trailed:
    for _ in range(TRIES):
        slot = await Slot.load(store, number)
        pages, missing = await _pages(store, slot, 0 if verify else since)
        first = (await Slot.load(store, number)).trail.pages.start if missing else 0
        if not missing or first <= min(missing):
            break
    trailed = Trailed(number, slot.trail.number, slot.trail.digest)
    if verify:
        trailed.problems = [
            *_check(slot, pages),
            *_check_ends(slot, pages, [end for end in ends if end.slot == number]),
        ]
        if seals is not None:
            trailed.problems += _check_seal(trailed, slot, pages, seals)
    elif missing:
        trailed.problems = [f"page {page} is missing" for page in missing]
    void: set[int] = set()
    found: list[Recorded] = []
    paged = slot.trail.paged.number
    for first, records in [*((page.first, page.records) for page in pages.values()), (paged + 1, slot.trail.recent)]:
        for place, data in enumerate(records, first):
            at, replica, act = unpack(data)
            if not isinstance(act, Act):
                void.add(act)
            elif at >= since:
                found.append(Recorded(number, place, replica, act))
    trailed.records = [recorded for recorded in found if recorded.number not in void]
    return trailed


async def _pages(store: StateStore, slot: Slot, since: int) -> tuple[dict[int, Page], list[int]]:
    """The pages with anything from `since` on, by their numbers, and the numbers of those that are missing."""
    pages: dict[int, Page] = {}
    missing: list[int] = []
    left = list(slot.trail.pages)
    while left:
        some, left = left[-READ_AT_ONCE:], left[:-READ_AT_ONCE]
        stored = await store.read([audit_key(slot.number, page) for page in some])
        for page in reversed(some):
            data = stored.get(audit_key(slot.number, page))
            if data is None:
                missing.append(page)
            else:
                pages[page] = Page.unpack(data)
        oldest = pages.get(some[0])
        if oldest is not None and oldest.newest < since:
            break
    return dict(sorted(pages.items())), missing


def _check(slot: Slot, pages: dict[int, Page]) -> list[str]:
    """Follow the chain over all pages to the slot's own last word; what does not fit is told."""
    problems: list[str] = []
    trail = slot.trail
    number, digest = 0, b""
    for place in trail.pages:
        page = pages.get(place)
        if page is None:
            problems.append(f"page {place} is missing")
            digest = b""
            continue
        if place == 1:
            number, digest = 0, origin(slot.number)
        if digest and page.before != digest:
            problems.append(f"up to record {page.first - 1} something was altered: page {place} goes on from another")
        if digest and page.first != number + 1:
            problems.append(f"between records {number} and {page.first} some are missing")
        number, digest = page.first + len(page.records) - 1, chained(page.before, page.records)
    if trail.pages and digest and (number, digest) != (trail.paged.number, trail.paged.digest):
        problems.append(f"up to record {trail.paged.number} something was altered, taken out or put in")
    if trail.recent and chained(trail.paged.digest, trail.recent) != trail.digest:
        problems.append(f"behind record {trail.paged.number} something was altered")
    return problems


def _check_seal(trailed: Trailed, slot: Slot, pages: dict[int, Page], seals: Seals) -> list[str]:
    """Whether the agent has signed for the last page: by its digest that is for all before, as far as it vouches."""
    paged = slot.trail.paged
    if not slot.trail.pages:
        return []
    page = pages.get(paged.last)
    try:
        seal = seals.read(page.seal if page else "", slot.number)
    except NotBelieved as error:
        return [f"up to record {paged.number} it is not signed by {seals.agent}: {error}"]
    if (seal.number, seal.digest) != (paged.number, paged.digest):
        return [f"up to record {paged.number} it is not what {seals.agent} has signed"]
    trailed.sealed = seal.number
    first = pages[min(pages)].first
    if seal.since > first:
        return [f"records {first} to {seal.since - 1} were there without a signature of {seals.agent} when it started"]
    return []


def _check_ends(slot: Slot, pages: dict[int, Page], ends: Collection[End]) -> list[str]:
    """Whether the chain still goes through each of these."""
    if not ends:
        return []
    digests = {0: origin(slot.number).hex()}
    runs = [(page.first, page.before, page.records) for page in pages.values()]
    paged = slot.trail.paged
    for first, before, records in [*runs, (paged.number + 1, paged.digest, slot.trail.recent)]:
        digests[first - 1] = before.hex()
        last = before
        for number, record in enumerate(records, first):
            last = chained(last, [record])
            digests[number] = last.hex()
    oldest = min((page.first for page in pages.values()), default=paged.number + 1)
    problems = []
    for end in ends:
        if end.number > slot.trail.number:
            problems.append(f"records {slot.trail.number + 1} to {end.number}, which there were, are gone")
        elif end.number >= oldest - 1 and digests.get(end.number) != end.digest:
            problems.append(f"up to record {end.number} it is not what it was")
        elif end.number < oldest - 1:
            problems.append(f"record {end.number} is forgotten, so what there was then can't be compared")
    return problems
