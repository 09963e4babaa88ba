"""ListTasks (A2A 1.0 §3.1.4): the pages of one owner's list, last changed first."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator

import msgpack
from a2a.types import ListTasksRequest, ListTasksResponse
from a2a.types import Task as A2ATask
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import apply_history_length, validate_history_length

from sidecard.tasks import checks
from sidecard.tasks.engine import Engine
from sidecard.tasks.index import Line, OwnerList

MAX_PAGE = 100
DEFAULT_PAGE = 50
AT_ONCE = 8
"""Tasks of a page that are read at a time."""
MOST_PAGE_BYTES = 8_000_000
"""What fills a page before its tasks do: a hundred tasks of megabytes would be more than memory holds."""

Places = dict[int, int]
"""Where one is in the list of each slot: what comes next is below."""


async def list_tasks(engine: Engine, tenant: str, owner: str, params: ListTasksRequest) -> ListTasksResponse:
    """One page of the tasks that an owner has in a tenant. Raises InvalidParamsError, StoreUnavailable.

    A page token is a place in the list: what is added above it changes nothing below. A task that changes while
    somebody pages moves to the top, and is on no later page. A page ends early when its tasks are large.
    """
    validate_history_length(params)
    if params.HasField("page_size") and not 1 <= params.page_size <= MAX_PAGE:
        raise InvalidParamsError(f"pageSize must be from 1 to {MAX_PAGE}")
    size = params.page_size if params.HasField("page_size") else DEFAULT_PAGE
    after = checks.milliseconds(params.status_timestamp_after) if params.HasField("status_timestamp_after") else None
    listing = await MergedList.open(engine, tenant, owner)
    lines = _matching(listing, params, after, _places(params.page_token))
    tasks, ends = await _page(engine, lines, params, size)
    response = ListTasksResponse(page_size=size, tasks=tasks, next_page_token=_page_token(ends) if ends else "")
    counted = not params.context_id and after is None
    response.total_size = listing.count(params.status) if counted else await _scan(engine, listing, params, after)
    return response


class MergedList:
    """One owner's lists in all slots as one, last changed first."""

    def __init__(self, engine: Engine, lists: dict[int, OwnerList]) -> None:
        self._engine = engine
        self._lists = lists

    @classmethod
    async def open(cls, engine: Engine, tenant: str, owner: str) -> "MergedList":
        """The list as it is now. Raises StoreUnavailable."""
        return cls(engine, {slot.number: await slot.lists.of((tenant, owner)) for slot in await engine.slots()})

    def count(self, state: int) -> int:
        """How many tasks are in a state; 0 for any."""
        return sum(lst.counts.get(state, 0) if state else sum(lst.counts.values()) for lst in self._lists.values())

    async def newest_first(self, places: Places | None = None) -> AsyncIterator[tuple[Places, Line]]:
        """Every line from these places on, each with places from which on it is the first."""
        places = places or {}
        lists = {k: lst.newest_first(self._engine.store, places.get(k)) for k, lst in self._lists.items()}
        heads: dict[int, tuple[int, Line]] = {}
        for k, lines in lists.items():
            if (head := await anext(lines, None)) is not None:
                heads[k] = head
        while heads:
            k = max(heads, key=lambda k: heads[k][1].at)
            yield {k: heads[k][0] + 1 if k in heads else 0 for k in lists}, heads[k][1]
            if (head := await anext(lists[k], None)) is not None:
                heads[k] = head
            else:
                del heads[k]


async def _matching(
    listing: MergedList, params: ListTasksRequest, after: int | None, places: Places | None
) -> AsyncIterator[tuple[Places, Line]]:
    """The newest line of each task, if it matches, and its places; lines that are outdated may come before it."""
    seen: dict[str, int] = {}
    async for at, line in listing.newest_first(places):
        if line.at <= seen.get(line.task_id, 0):
            continue
        seen[line.task_id] = line.at
        if _matches(line, params, after):
            yield at, line


def _matches(line: Line, params: ListTasksRequest, after: int | None) -> bool:
    return (
        (not params.status or line.state == params.status)
        and (not params.context_id or line.context_id == params.context_id)
        and (after is None or line.at >= after)
    )


async def _page(
    engine: Engine, lines: AsyncIterator[tuple[Places, Line]], params: ListTasksRequest, size: int
) -> tuple[list[A2ATask], Places | None]:
    """The tasks of a page, and the places from which on the next one begins; what is read at once fits, as it seems."""
    page: list[A2ATask] = []
    held, largest, at_once = 0, 1, 1
    while some := await _some(lines, at_once):
        tasks = await asyncio.gather(*(_listed(engine, line, params) for _, line in some))
        for (places, _), task in zip(some, tasks, strict=True):
            if task is None:
                continue
            taken = task.ByteSize()
            held, largest = held + taken, max(largest, taken)
            if len(page) == size or (page and held > MOST_PAGE_BYTES):
                return page, places
            page.append(task)
        at_once = max(1, min(AT_ONCE, size + 1 - len(page), (MOST_PAGE_BYTES - held) // largest))
    return page, None


async def _some(lines: AsyncIterator[tuple[Places, Line]], count: int) -> list[tuple[Places, Line]]:
    """The next of these lines, so many at the most."""
    some: list[tuple[Places, Line]] = []
    async for line in lines:
        some.append(line)
        if len(some) == count:
            break
    return some


async def _listed(engine: Engine, line: Line, params: ListTasksRequest) -> A2ATask | None:
    """The task of a line; None when a newer line speaks of it, on a page before."""
    async with engine.borrow(line.task_id) as live:
        if live is None or live.folded.task.status.timestamp.ToMilliseconds() != line.at:
            return None
        task = apply_history_length(live.folded.public(), params)
        if not params.include_artifacts:
            task.ClearField("artifacts")
        return task


async def _scan(engine: Engine, listing: MergedList, params: ListTasksRequest, after: int | None) -> int:
    """How many tasks match filters that no counter is kept for: every line is read once.

    A line as old as tasks that expire may be outdated by one that has expired already, in another replica's list.
    """
    expiring = engine.expiring_before()
    newest: dict[str, Line] = {}
    async for _, line in listing.newest_first():
        if line.task_id not in newest or line.at > newest[line.task_id].at:
            newest[line.task_id] = line
    total = 0
    for line in newest.values():
        if _matches(line, params, after):
            total += line.at > expiring or await _listed(engine, line, params) is not None
    return total


def _page_token(places: Places) -> str:
    return base64.urlsafe_b64encode(msgpack.packb(places)).decode().rstrip("=")


def _places(token: str) -> Places | None:
    if not token:
        return None
    try:
        places = msgpack.unpackb(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), strict_map_key=False)
        return {int(k): int(place) for k, place in places.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error, msgpack.UnpackException):
        raise InvalidParamsError("pageToken is not one that this agent gave out") from None
