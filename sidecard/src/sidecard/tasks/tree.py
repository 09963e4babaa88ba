"""A task's log together with the logs of everything that was delegated from it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sidecard.errors import SidecardError
from sidecard.tasks.entry import Entry
from sidecard.tasks.state import FoldedTask

ReadLog = Callable[[str, str], Awaitable[tuple[FoldedTask, list[Entry]]]]
"""Reads the log of (agent, task), empty for no task. Raises SidecardError when it can't be read."""


@dataclass(slots=True)
class Logged:
    """One task. `children` are by the place of the record that first names them; `missing` says why there is no log."""

    agent: str
    task_id: str
    folded: FoldedTask = field(default_factory=FoldedTask)
    entries: Sequence[Entry] = ()
    children: dict[str, "Logged"] = field(default_factory=dict)
    missing: str = ""


async def read_tree(read: ReadLog, agent: str, task_id: str) -> Logged:
    """A task and, from the "child" records, what it delegated, and so on. Each task is there once.

    Raises SidecardError when the first one's log can't be read; a child's that can't is `missing`.
    """
    return await _read(read, agent, task_id, set())


async def _read(read: ReadLog, agent: str, task_id: str, seen: set[tuple[str, str]]) -> Logged:
    seen.add((agent, task_id))
    folded, entries = await read(agent, task_id)
    logged = Logged(agent, task_id, folded, entries, missing="" if entries else f"{agent} has no log of it")
    for n, entry in enumerate(entries, 1):
        for number, record in enumerate(entry.records):
            if record[0] == "child" and (record[2], record[3]) not in seen:
                logged.children[f"{n}.{number}"] = await _child(read, record[2], record[3], seen)
    return logged


async def _child(read: ReadLog, agent: str, task_id: str, seen: set[tuple[str, str]]) -> Logged:
    try:
        return await _read(read, agent, task_id, seen)
    except SidecardError as error:
        return Logged(agent, task_id, missing=str(error))
