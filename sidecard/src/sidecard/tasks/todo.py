"""A slot's to-do list, its outbox, and whose lists it has: sets of names, in pages of which a change touches few.

todo:{k}:{page}    ids of tasks that anything but a person must move on
outbox:{k}:{page}  ids of tasks whose receivers are to be told, and marks (see mail.py)
owners:{k}:{page}  see lists.py
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgpack

from sidecard.tasks.store import StateStore

PAGE = 64
"""Names in a page: what one change rewrites."""


@dataclass(slots=True)
class TodoChange:
    """Pages of a to-do list as they will be once they are written."""

    pages: dict[int, set[str]]
    count: int
    writes: dict[str, bytes]


class Todo:
    """A set of task ids in pages, of which a change touches few."""

    def __init__(self, key: str, pages: Iterable[Iterable[str]] = ()) -> None:
        self.key = key
        self._pages = [set(page) for page in pages]
        self._page_of = {task_id: number for number, page in enumerate(self._pages) for task_id in page}
        self._with_room = {number for number, page in enumerate(self._pages) if len(page) < PAGE}

    @classmethod
    async def load(cls, store: StateStore, key: str, pages: int) -> "Todo":
        """Read that many pages."""
        keys = [f"{key}:{number}" for number in range(pages)]
        stored = await store.read(keys) if keys else {}
        return cls(key, [msgpack.unpackb(stored[key]) for key in keys])

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._page_of

    def all(self) -> list[str]:
        """The ids of all listed tasks."""
        return [task_id for page in self._pages for task_id in sorted(page)]

    def stage(self, changes: dict[str, bool]) -> TodoChange:
        """What to write to put tasks on (True) or take them off (False). The list stays as it is until `settle`.

        Costs as much as the pages touched, however long the list is.
        """
        pages: dict[int, set[str]] = {}
        count = len(self._pages)
        for task_id in (t for t, listed in changes.items() if not listed and t in self._page_of):
            number = self._page_of[task_id]
            pages.setdefault(number, set(self._pages[number])).discard(task_id)
        room = iter([*pages, *itertools.islice(self._with_room, len(changes))])
        into = next(room, None)
        for task_id in (t for t, listed in changes.items() if listed and t not in self._page_of):
            while into is None or len(self._page(pages, into)) >= PAGE:
                into = next(room, None)
                if into is None:
                    into, count = count, count + 1
            pages[into] = self._page(pages, into) | {task_id}
        writes: dict[str, bytes] = {f"{self.key}:{n}": msgpack.packb(sorted(page)) for n, page in pages.items()}
        return TodoChange(pages, count, writes)

    def settle(self, change: TodoChange) -> None:
        """Make a change that has been written this list's own."""
        for number in sorted(change.pages):
            page = change.pages[number]
            if number == len(self._pages):
                self._pages.append(set())
            for task_id in self._pages[number] - page:
                del self._page_of[task_id]
            self._page_of.update(dict.fromkeys(page, number))
            self._pages[number] = page
            (self._with_room.add if len(page) < PAGE else self._with_room.discard)(number)

    def _page(self, pages: dict[int, set[str]], number: int) -> set[str]:
        if number in pages:
            return pages[number]
        return self._pages[number] if number < len(self._pages) else set()


class Listed:
    """A set of task ids, or names: in `all` as the slot's entries say, in pages as of the last checkpoint."""

    def __init__(self, key: str, pages: Todo | None = None) -> None:
        self._pages = pages or Todo(key)
        self._unpaged: dict[str, bool] = {}
        self.all = set(self._pages.all())

    @classmethod
    async def load(cls, store: StateStore, key: str, pages: int) -> "Listed":
        """Read its pages."""
        return cls(key, await Todo.load(store, key, pages))

    def changed(self, changes: Mapping[str, bool]) -> dict[str, bool]:
        """Those of these changes that are any."""
        return {task_id: on for task_id, on in changes.items() if on != (task_id in self.all)}

    def take(self, changes: Mapping[str, bool]) -> None:
        """Change the set."""
        self._unpaged.update(changes)
        for task_id, on in changes.items():
            (self.all.add if on else self.all.discard)(task_id)

    def stage(self, changes: Mapping[str, bool]) -> TodoChange:
        """The pages with these changes and all since the last checkpoint."""
        return self._pages.stage(self._unpaged | dict(changes))

    def settle(self, change: TodoChange) -> None:
        """What was staged is stored."""
        self._pages.settle(change)
        self._unpaged = {}
