"""Deliveries that were given up: what an operator sees of them, and how they are made after all.

redeliver:{k}  what an operator asks of the holder of slot k: [[task id, [name of a receiver, as in mail.Mail …]] …]

It is created, when it is absent, by whoever may write to the agent's store: that is who holds the token of its sidecar.
The holder of the slot sees it, stores that what it names is tried again, and then deletes it; so it is never lost,
whoever dies meanwhile. There is no other way in: what callers may do has nothing to do with it.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import httpx
import msgpack
from a2a.types import Message

from sidecard.errors import LogBroken, StoreUnavailable, TaskConflict
from sidecard.tasks.cursor import Cursor
from sidecard.tasks.entry import Entry
from sidecard.tasks.journal import Journal
from sidecard.tasks.loading import read_log
from sidecard.tasks.mail import Hook, Mail, is_mark, mark, task_of
from sidecard.tasks.outbox import Outbox
from sidecard.tasks.slots import Slot, Sweep
from sidecard.tasks.state import Orphan, Place
from sidecard.tasks.store import StateStore

log = logging.getLogger("sidecard.tasks")

LOOK_SECONDS = 1.0
TIDY_SECONDS = 6 * 3_600.0
"""How often marks are looked at whose tasks may have expired."""
WAIT_SECONDS = 0.1
AT_ONCE = 32


def request_key(number: int) -> str:
    """Key of what is asked of the holder of a slot."""
    return f"redeliver:{number}"


class DeadLetters:
    """Has deliveries made after all that an operator asks for. It looks only while there is one that was given up."""

    def __init__(self, journal: Journal, outbox: Outbox) -> None:
        self._journal = journal
        self._outbox = outbox

    async def run(self) -> None:
        """Look after what is asked, for ever."""
        first, tidy = True, time.monotonic() + TIDY_SECONDS
        while True:
            try:
                if first or self._outbox.dead:
                    await self.look(self._journal.slot.number)
                    first = False
                if time.monotonic() > tidy:
                    tidy += TIDY_SECONDS
                    self._outbox.take_up([mark(task_id) for task_id in self._outbox.dead])
            except StoreUnavailable as error:
                log.info("can't see what is to be delivered after all: %s", error)
            except Exception:
                log.exception("can't see what is to be delivered after all")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, number: int) -> None:
        """Do what is asked of the holder of a slot: this replica's own, or one that it takes over.

        Raises StoreUnavailable.
        """
        key = request_key(number)
        asked = (await self._journal.store.read([key])).get(key)
        if asked is None:
            return
        tasks = _tasks(asked)
        for start in range(0, len(tasks), AT_ONCE):
            await asyncio.gather(*(self._revive(*task) for task in tasks[start : start + AT_ONCE]))
        await self._journal.sweep(Sweep(deletes=[key]))

    async def _revive(self, task_id: str, names: list[str]) -> None:
        log.info("delivering what was given up of task %s", task_id)
        try:
            await self._outbox.revive(task_id, names)
        except LogBroken as error:
            log.error("%s", error)


def _tasks(asked: bytes) -> list[tuple[str, list[str]]]:
    """What a request names; nothing when it is none."""
    try:
        return [(str(task_id), [*map(str, names)]) for task_id, names in msgpack.unpackb(asked)]
    except (ValueError, TypeError, msgpack.UnpackException):
        log.error("what is asked to be delivered can't be read, and is dropped")
        return []


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that was given up: to a webhook, to the topic, or the cancel of what was delegated.

    A webhook has `config_id` and `url`, which is without its query, since that may hold secrets; the topic has nothing
    of these; to be canceled is the task `child` of an `agent`, or what that may have made of the message of that id.
    `slot` is one whose holder knows of it, `name` is the receiver's, as in mail.Mail. It could not be reached since
    `since`, UTC in milliseconds, for that many `attempts`, the last time because of `problem`; and is yet to be told of
    so many events as are `waiting`, one for a cancel.
    """

    slot: int
    task_id: str
    name: str
    since: int
    attempts: int
    problem: str
    waiting: int
    config_id: str = ""
    url: str = ""
    agent: str = ""
    child: str = ""


async def dead_letters(store: StateStore) -> list[DeadLetter]:
    """All deliveries of an agent that were given up and can still be made, oldest first.

    Raises StoreUnavailable, LogBroken.
    """
    found: dict[tuple[str, str], DeadLetter] = {}
    for number in itertools.count():
        slot = await Slot.load(store, number)
        if not slot.n:
            break
        for name in sorted(filter(is_mark, slot.outbox.all)):
            for letter in await _of_task(store, number, task_of(name)):
                found.setdefault((letter.task_id, letter.name), letter)
    return sorted(found.values(), key=lambda letter: (letter.since, letter.task_id, letter.name))


async def _of_task(store: StateStore, number: int, task_id: str) -> list[DeadLetter]:
    folded, entries = await read_log(store, task_id)
    if not entries:
        return []  # it has expired
    mail = Mail(task_id, folded.meta)
    mail.renew(folded, topic=True)
    stored = await store.read([hook.key for hook in mail.hooks.values()])
    letters = []
    for hook in mail.hooks.values():
        hook.cursor = cursor = Cursor.of(hook.webhook, stored.get(hook.key))
        if hook.dead:
            waiting = _events_from(cursor.place, entries, hook, mail.meta)
            letter = DeadLetter(
                number, task_id, hook.name, cursor.failing_since, cursor.attempts, cursor.problem, waiting
            )
            letters.append(_addressed(letter, hook))
    return letters


def _addressed(letter: DeadLetter, hook: Hook) -> DeadLetter:
    if hook.orphan is not None:
        return replace(letter, agent=hook.orphan.agent, child=hook.orphan.task_id or _message_id(hook.orphan))
    if hook.config is not None:
        url = httpx.URL(hook.config.url).copy_with(query=None, fragment=None)
        return replace(letter, config_id=hook.config.id, url=str(url))
    return letter


def _message_id(orphan: Orphan) -> str:
    return Message.FromString(orphan.message).message_id


def _events_from(place: Place, entries: Sequence[Entry], hook: Hook, meta: Mapping[str, str]) -> int:
    return sum(
        hook.hears(record, meta, (n, number)) is not None
        for n, entry in enumerate(entries, 1)
        for number, record in enumerate(entry.records)
        if (n, number) >= place
    )


async def ask_for(store: StateStore, letters: Collection[DeadLetter]) -> bool:
    """Ask the agent to deliver these after all; False when others have asked it and it has yet to answer them.

    From then on it will, whether it runs now or later. Raises StoreUnavailable when the outcome is not known.
    """
    asked = True
    for number in {letter.slot: None for letter in letters}:
        tasks: dict[str, list[str]] = {}
        for letter in letters:
            if letter.slot == number:
                tasks.setdefault(letter.task_id, []).append(letter.name)
        try:
            await store.write([(request_key(number), msgpack.packb(list(tasks.items())))], {})
        except TaskConflict:
            asked = False
    return asked


async def taken(store: StateStore, letters: Collection[DeadLetter], seconds: float) -> bool:
    """Whether the agent has seen within that time what it was asked. Raises StoreUnavailable."""
    keys = [request_key(number) for number in {letter.slot: None for letter in letters}]
    deadline = time.monotonic() + seconds
    while keys and await store.read(keys):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(WAIT_SECONDS)
    return True
